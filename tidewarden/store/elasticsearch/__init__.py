"""The store on Elasticsearch; `ElasticsearchStore` is all that others need."""

from tidewarden.store.elasticsearch.store import ElasticsearchStore

__all__ = ["ElasticsearchStore"]
