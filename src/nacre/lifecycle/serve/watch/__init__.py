"""What is said about the gateway while it runs: metrics, one log line per request, traces, alerts."""
