from tests.object_store import object_store, s3_server

__all__ = ["object_store", "s3_server"]  #: fixtures
