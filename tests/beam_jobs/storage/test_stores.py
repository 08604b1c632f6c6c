"""Clients of an object store: which threads share one."""

from concurrent.futures import ThreadPoolExecutor

from beam_jobs.storage import files
from beam_jobs.storage.stores import store_of


def test_threads_share_a_few_clients_of_boto3_and_no_state_of_a_download(s3_folder):
    def write_and_read(number):
        path = f"{s3_folder}/{number}"
        files.write_bytes(path, f"object {number}".encode())
        assert files.read_bytes(path) == f"object {number}".encode()
        return store_of(path)._s3.client

    clients = []
    for number in range(12):
        # Each pool has a new thread.
        with ThreadPoolExecutor(1) as pool:
            clients.append(pool.submit(write_and_read, number).result())
    assert len({id(client) for client in clients}) == 12
    assert len({id(client.client) for client in clients}) <= 4
