"""Drivers of long work: one generator of `Progress`, run here, in a thread or in a process."""
