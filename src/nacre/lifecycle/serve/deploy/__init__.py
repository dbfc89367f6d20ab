"""What is needed to run the gateway somewhere: alert rules, a dashboard, a service unit, manifests, Ray Serve."""
