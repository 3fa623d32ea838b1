"""The PyPI client atproto goes on with a session, or makes one for somebody else to go on with.

It prints one JSON object: the session string at its end, and what it saw.

    python session.py '{"do": "resume", "session": STRING}'
    python session.py '{"do": "login", "pds": URL, "handle": HANDLE, "password": PASSWORD}'
"""

import json
import sys
import warnings

from atproto import Client

warnings.simplefilter('ignore')
task = json.loads(sys.argv[1])

if task['do'] == 'resume':
    client = Client()
    client.login(session_string=task['session'], fetch_bsky_profile=False)
    if task.get('pds'):  # a string of the older form doesn't say it
        client.update_base_url(task['pds'] + '/xrpc')
else:
    client = Client(base_url=task['pds'])
    client.login(task['handle'], task['password'], fetch_bsky_profile=False)

session = client.com.atproto.server.get_session()
record = {'$type': 'app.bsky.feed.post', 'text': 'by the Python client', 'createdAt': client.get_current_time_iso()}
post = client.com.atproto.repo.create_record({'repo': session.did, 'collection': 'app.bsky.feed.post', 'record': record})
listed = client.com.atproto.repo.list_records({'repo': session.did, 'collection': 'app.bsky.feed.post'})
print(
    json.dumps(
        {
            'did': session.did,
            'session': client.export_session_string(),
            'uri': post.uri,
            'posts': [r.value.text for r in listed.records],
        }
    )
)
