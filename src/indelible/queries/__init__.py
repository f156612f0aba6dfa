"""What can be asked of the log: filters, sorting, pages, and how they are written in URLs, searches and command lines.

Values only; the stores answer them.
"""

from indelible.queries.addresses import canonical_address
from indelible.queries.cursors import check_cursor, decode_cursor, encode_cursor
from indelible.queries.moments import bucket_width, parse_moment
from indelible.queries.params import (
    FILTERS,
    MAX_PAGE,
    MAX_SEARCH,
    MAX_VALUES,
    PARAMETERS,
    REPEATABLE,
    filter_as_params,
    parse_filter,
    parse_query,
)
from indelible.queries.search import Completion, complete, filter_as_search, parse_search
from indelible.queries.values import (
    COUNT_CAP,
    DEFAULT_PAGE_SIZE,
    EARLIEST,
    FACETS,
    FACETS_CAP,
    LATEST,
    MAX_PAGE_SIZE,
    MAX_SEQ,
    NULLABLE_SORT_FIELDS,
    SORT_FIELDS,
    Count,
    Cursor,
    Facets,
    Filter,
    Query,
    SortField,
    Stats,
    storable,
)

__all__ = [
    "COUNT_CAP",
    "DEFAULT_PAGE_SIZE",
    "EARLIEST",
    "FACETS",
    "FACETS_CAP",
    "FILTERS",
    "LATEST",
    "MAX_PAGE",
    "MAX_PAGE_SIZE",
    "MAX_SEARCH",
    "MAX_SEQ",
    "MAX_VALUES",
    "NULLABLE_SORT_FIELDS",
    "PARAMETERS",
    "REPEATABLE",
    "SORT_FIELDS",
    "Completion",
    "Count",
    "Cursor",
    "Facets",
    "Filter",
    "Query",
    "SortField",
    "Stats",
    "bucket_width",
    "canonical_address",
    "check_cursor",
    "complete",
    "decode_cursor",
    "encode_cursor",
    "filter_as_params",
    "filter_as_search",
    "parse_filter",
    "parse_moment",
    "parse_query",
    "parse_search",
    "storable",
]
