"""Filters before or after a model: transformations of its inputs or outputs that leave its weights unchanged."""

from wootz.models.filters.filtered import FILTERS, Filtered, filters_of, same_answers, with_filter, with_filters

__all__ = ["FILTERS", "Filtered", "filters_of", "same_answers", "with_filter", "with_filters"]
