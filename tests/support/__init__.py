"""What tests share: data sets, models and stores made by code, and reference implementations."""
