"""From Kafka records (or a file) to buffered prompts: nothing lost, nothing twice, nothing bad let through."""
