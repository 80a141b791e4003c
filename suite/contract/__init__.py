"""What a task and a metric are: known to whoever runs, stores or reports them."""
