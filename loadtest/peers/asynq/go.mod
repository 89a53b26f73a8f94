module peers

go 1.24

require (
	github.com/hibiken/asynq v0.25.1
	golang.org/x/time v0.8.0
)
