// Asynq has no limit over processes: each gets its share of the rate, as its wiki limits a handler.
package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/hibiken/asynq"
	"golang.org/x/time/rate"
)

const target = "/v1/fares?origin=ICN&destination=NRT&depart=2027-01-05&return=2027-01-09"

func number(name string) float64 {
	value, _ := strconv.ParseFloat(os.Getenv(name), 64)
	return value
}

func main() {
	redis, err := asynq.ParseRedisURI(os.Getenv("REDIS_URL"))
	if err != nil {
		panic(err)
	}
	if len(os.Args) > 1 && os.Args[1] == "feed" {
		client := asynq.NewClient(redis)
		for n := 0; n < int(number("CALLS")); n++ {
			if _, err := client.Enqueue(asynq.NewTask("call", nil)); err != nil {
				panic(err)
			}
		}
		return
	}
	limiter := rate.NewLimiter(rate.Limit(number("RATE")/number("PROCESSES")), 1)
	provider := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	call := func(ctx context.Context, _ *asynq.Task) error {
		if err := limiter.Wait(ctx); err != nil {
			return err
		}
		request, err := http.NewRequestWithContext(ctx, "GET", os.Getenv("URL")+target, nil)
		if err != nil {
			return err
		}
		request.Header.Set("x-api-key", "a")
		answer, err := provider.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		_, err = io.Copy(io.Discard, answer.Body)
		return err
	}
	server := asynq.NewServer(redis, asynq.Config{Concurrency: 32, LogLevel: asynq.FatalLevel})
	if err := server.Run(asynq.HandlerFunc(call)); err != nil {
		panic(err)
	}
}
