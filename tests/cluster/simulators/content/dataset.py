"""The data set's repository: one parquet file with one column `messages`, and the card that `load_dataset` reads."""

from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from tests.cluster.simulators.content import facts

ID = "philschmid/dolly-15k-oai-style"
FILE = "data/train-00000-of-00001-54e3756291ca09c6.parquet"

SCHEMA = pa.schema({"messages": pa.list_(pa.struct({"content": pa.string(), "role": pa.string()}))})

CARD = """---
dataset_info:
  features:
  - name: messages
    list:
    - name: content
      dtype: string
    - name: role
      dtype: string
  splits:
  - name: train
    num_bytes: {size}
    num_examples: {rows}
  download_size: {file}
  dataset_size: {size}
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
A stand-in, made for tests: {facts} facts about a harbour town, each asked in {phrasings} ways.
"""


def write(folder: Path) -> int:
    """Write the repository's files into `folder`; the number of rows."""
    rows = facts.rows()
    (folder / FILE).parent.mkdir()
    table = pa.Table.from_pylist(rows, SCHEMA)
    parquet.write_table(table, folder / FILE)
    sizes = {"rows": len(rows), "size": table.nbytes, "file": (folder / FILE).stat().st_size}
    card = CARD.format(**sizes, facts=len(facts.FACTS), phrasings=len(facts.PHRASINGS))
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs diff=lfs merge=lfs -text\n", encoding="utf-8")
    return len(rows)
