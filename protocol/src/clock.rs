//! The fleet's clock is Redis'. A process knows it as an interval and never uses its own.
