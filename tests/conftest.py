"""What every folder of tests can reach: the real servers, started only by the tests that ask for them."""

pytest_plugins = [
    "servers.apiserver",
    "servers.elasticsearch",
    "servers.kafka",
    "servers.operator",
    "servers.prometheus",
    "servers.s3",
]
