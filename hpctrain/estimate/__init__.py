"""What a training will need before it runs: memory, time, money, and whether a plan can hold."""
