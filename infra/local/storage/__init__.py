"""A local stand-in for Google Cloud Storage: a real HTTP server on loopback, objects in memory or in a folder.

Point STORAGE_EMULATOR_HOST at it and google-cloud-storage, gcsfs and curl work unchanged:

    from infra.local.storage.control import running_storage

    with running_storage() as storage:                     # or: python -m infra.local.storage --port 4443
        storage.create_bucket("demo")
        os.environ["STORAGE_EMULATOR_HOST"] = storage.url
        storage.throttle(stream_bytes_per_s=100e6, first_byte_s=0.03)
        storage.fault("status", action="create", status=503, count=3)
        storage.outage("blackhole", seconds=5)

Played: the JSON API's buckets; media, multipart and resumable uploads; downloads with ranges and generations;
generations, metagenerations and every ifGeneration*/ifMetageneration* precondition; CRC32C and MD5, verified when the
client sends them; paged listings; rewrite, copyTo, moveTo, compose, patch, update, custom time; object versioning;
holds and a bucket's retention policy; batches; bearer tokens with expiry; rules per identity, action and prefix,
overwriting needs storage.objects.delete; the XML API's reads, as Google's Go client and Terraform's state ask for them;
buckets' IAM policies, kept with their etags; objects stored with gzip, decompressed for who does not take them so.

Where it differs from the real service:

- Of the XML API only GET and HEAD of objects: no XML multipart uploads, no signed URLs; no gRPC, no TLS, HTTP/1.1 only.
- Objects over 4 MiB have no md5Hash unless the client sent one (as composite objects have none in the real service).
- Nothing survives the server's process, unless a folder keeps its objects; resumable uploads never do. Such buckets
  have no older versions, no damage on purpose, and no names that a file system hasn't ("a//b", "a" beside "a/b").
- Nothing ages: lifecycle rules and soft delete are kept as metadata and not
  acted on. A listing's matchGlob, filter and softDeleted are refused with 400.
- No ACLs, HMAC keys, notifications, managed folders, hierarchical namespaces, encryption with the client's keys,
  requester pays. What is not played is refused with 400 in words, never 404, which a client takes for "not there";
  of what is, unknown parameters are ignored. `fields` is ignored: answers are always whole.
- A bucket's policy has no effect here: what an identity may do are the rules below.
- ETag conditions (If-Match) are ignored.
- No limit of one change per second and object, no request rate limits of its own: ask for 429 with a fault.
- IAM rules here are (identity, actions, prefix); a move needs get, create and delete, not storage.objects.move.
- With ifGenerationMatch=0 on an object that exists, an identity that may not delete is told 412, not 403. Without
  that condition it is told 403. (Which of the two the real service checks first is not documented.)
- A fault rule sees a batch as one request; the operations in it are held to IAM but not struck one by one.
- A small request sent into a blackhole is carried out when the blackhole ends, if the client's kernel had sent it all.
"""
