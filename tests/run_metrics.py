"""Metrics as a run writes them into val_metrics.json."""

VAL_METRICS = {
    **{
        "n": 2396,
        "accuracy": 0.9449,
        "accuracy_low": 0.9351,
        "accuracy_high": 0.9532,
        "n_male": 1300,
        "n_female": 1096,
    },
    **{"recall_male": 0.96, "recall_female": 0.9212, "recall_female_low": 0.904, "recall_female_high": 0.936},
}
