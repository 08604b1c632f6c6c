"""claim-check: does pretraining on pairs help these tasks, by how much, with how few labels? Answered at equal compute."""
