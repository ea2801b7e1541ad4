"""A grid of trainings: which runs, their processes, what each leaves."""
