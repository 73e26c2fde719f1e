"""Stages and metrics of the Niebla Observatory for qlstream."""
