"""The PyPI client atproto lives on a local network: login, session string, rich text, like, get, delete.

It prints one JSON object that says what must be true afterwards.

    python high_level.py '{"pds": URL}'
"""

import json
import sys

from atproto import Client, client_utils
from atproto.exceptions import AtProtocolError, BadRequestError

pds = json.loads(sys.argv[1])['pds']


def sign_up(name: str) -> Client:
    client = Client(base_url=pds)
    client.com.atproto.server.create_account(
        {'handle': f'{name}.test', 'email': f'{name}@example.com', 'password': f'{name}-long-password'}
    )
    profile = client.login(f'{name}.test', f'{name}-long-password')
    assert profile.handle == f'{name}.test', profile
    assert client.me.did.startswith('did:plc:')
    return client


carol, dave = sign_up('py-carol'), sign_up('py-dave')

# A session outlives its client.
text = carol.export_session_string()
again = Client(base_url=pds)
again.login(session_string=text)
assert again.me.did == carol.me.did
assert again.export_session_string() == text

builder = client_utils.TextBuilder()
builder.text('Grüße an ').mention('Dave', dave.me.did).text(' 🌤 ').link('the spec', 'https://atproto.com/specs/atp').text(' ').tag('#go', 'go')
post = again.send_post(builder, langs=['de', 'en'])
rkey = post.uri.split('/')[-1]
got = carol.get_post(rkey)
assert got.cid == post.cid
assert got.value.text == builder.build_text()
assert [f.features[0].py_type for f in got.value.facets] == [
    'app.bsky.richtext.facet#mention',
    'app.bsky.richtext.facet#link',
    'app.bsky.richtext.facet#tag',
]

like = dave.like(post.uri, post.cid)
follow = dave.follow(carol.me.did)
unliked = carol.like(post.uri, post.cid)
assert carol.unlike(unliked.uri)
deleted = carol.send_post('soon gone')
assert carol.delete_post(deleted.uri)
try:
    carol.get_post(deleted.uri.split('/')[-1])
    raise SystemExit('a deleted post was found')
except BadRequestError as e:
    assert e.response.content.error == 'RecordNotFound', e.response

image = bytes.fromhex(
    '89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6364f8cf500f0003860180'
    '5a347d6b0000000049454e44ae426082'
)
picture = carol.send_image('with an image', image, 'one pixel')
try:
    Client(base_url=pds).login('py-carol.test', 'wrong')
    raise SystemExit('a wrong password was taken')
except AtProtocolError:
    pass

listed = dave.com.atproto.repo.list_records({'repo': carol.me.did, 'collection': 'app.bsky.feed.post'})
assert {r.uri for r in listed.records} == {post.uri, picture.uri}, listed.records

print(
    json.dumps(
        {
            'accounts': {carol.me.did: 'py-carol.test', dave.me.did: 'py-dave.test'},
            'records': [{'uri': r.uri, 'cid': r.cid} for r in (post, like, follow, picture)],
            'deleted': [unliked.uri, deleted.uri],
            'counts': {
                carol.me.did: {'app.bsky.feed.post': 2},
                dave.me.did: {'app.bsky.feed.like': 1, 'app.bsky.graph.follow': 1},
            },
            'backlinks': [
                {'subject': post.uri, 'source': 'app.bsky.feed.like:subject.uri', 'total': 1},
                {'subject': carol.me.did, 'source': 'app.bsky.graph.follow:subject', 'total': 1},
                {
                    'subject': 'https://atproto.com/specs/atp',
                    'source': 'app.bsky.feed.post:facets[app.bsky.richtext.facet].features[app.bsky.richtext.facet#link].uri',
                    'total': 1,
                },
            ],
        }
    )
)
