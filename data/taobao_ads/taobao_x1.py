"""The columns of TaobaoAd_x1, and its histories, whose lists may differ in length, made equal."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from taobao_raw import AD, PROFILE

from loopctr_tf.prepare.spans import flat_spans
from loopctr_tf.prepare.typed import WantedColumn

ROWS = {"train": 21_929_911, "test": 3_099_515}
HISTORIES = ("cate_his", "brand_his", "btag_his")
WANTED = [
    WantedColumn("clk", "binary", required=True),
    WantedColumn("userid", "string", required=True),
    *(WantedColumn(name, "string") for name in (*PROFILE, "adgroup_id", *AD, "pid", "btag")),
    WantedColumn("price", "float32"),
    *(WantedColumn(name, "string", separator="^") for name in HISTORIES),
]


def aligned(table: pa.Table) -> pa.Table:
    """The table with histories of equal length, aligned at the most recent event.

    The publisher leaves what is missing out of each list for itself, so that the brands of a history can
    be fewer than its categories. The place of what is missing is not known; here the oldest events lack.
    """
    lists = {name: table[name].combine_chunks() for name in HISTORIES}
    lengths = {
        name: pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
        for name, column in lists.items()
    }
    longest = np.maximum.reduce(list(lengths.values()))
    ends = np.cumsum(longest)
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    for name, column in lists.items():
        if np.array_equal(lengths[name], longest):
            continue
        source = np.full(int(longest.sum()), -1)
        places, _ = flat_spans(ends - lengths[name], ends)
        source[places] = np.arange(len(places))
        values = column.flatten().take(pa.array(source, mask=source < 0))
        filled = pa.ListArray.from_arrays(offsets, values)
        table = table.set_column(table.schema.get_field_index(name), name, filled)
    return table
