"""Measuring an exported model: metrics, figures, robustness, error analysis, report and model card.

Works on predictions and labels; only `measuring` runs the detector.
"""
