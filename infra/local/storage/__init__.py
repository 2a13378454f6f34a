"""A local stand-in for Google Cloud Storage: a real HTTP server on loopback, objects in memory only.

Point STORAGE_EMULATOR_HOST at it and google-cloud-storage, gcsfs and curl work unchanged.
Start it with `python -m infra.local.storage`, or from Python:

    from infra.local.storage.control import running_storage

    with running_storage() as storage:
        storage.create_bucket("demo")
        os.environ["STORAGE_EMULATOR_HOST"] = storage.url
        storage.throttle(stream_bytes_per_s=100e6, first_byte_s=0.03)
        storage.fault("status", action="create", status=503, count=3)
"""
