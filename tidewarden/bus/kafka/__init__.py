"""The bus on Apache Kafka; the only place, besides `tidewarden play`, that knows its client.

Imports nothing by itself: the operator needs `admin`, and should not pay for frames.
"""
