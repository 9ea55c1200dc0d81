"""Makes embeddings.json: Parquet files with lists of numbers, by pyarrow 25.0.1 (pip install pyarrow). Run it in this folder."""

import base64
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq

rows = [[float((i * 7 + d * 3) % 11 - 5) for d in range(4)] for i in range(60)]
ragged = [row[:3] if i == 7 else row for i, row in enumerate(rows)]


def parquet(columns, **options):
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return base64.b64encode(out.getvalue()).decode()


lists = pa.list_(pa.float32())
files = {
    "lists": parquet(
        {"id": list(range(60)), "embedding": pa.array(rows, lists)},
        compression="snappy",
        row_group_size=25,
        use_dictionary=False,
    ),
    "ragged": parquet({"v": pa.array(ragged, lists)}, compression="none"),
}
with open("embeddings.json", "w") as file:
    json.dump(files, file, indent=1)
    file.write("\n")
