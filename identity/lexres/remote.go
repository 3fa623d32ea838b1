package lexres

import (
	"context"
	"fmt"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

// Ask has a server resolve a schema, by com.atproto.lexicon.resolveLexicon, and takes its word for it: only that the schema is what its
// CID says, and that it bears the name, is checked. [Resolver.Resolve] trusts nobody.
func Ask(ctx context.Context, c *xrpc.Client, id syntax.NSID) (*lexicon.Schema, syntax.ATURI, cid.CID, error) {
	none := func(err error) (*lexicon.Schema, syntax.ATURI, cid.CID, error) { return nil, "", cid.CID{}, err }
	id, err := name(id)
	if err != nil {
		return none(err)
	}
	out, err := comatproto.LexiconResolveLexicon.Call(ctx, c, &comatproto.LexiconResolveLexicon_Params{Nsid: string(id)})
	if err != nil {
		return none(fmt.Errorf("asking %s for %s: %w", c.Host, id, err))
	}
	record, err := data.Append(nil, &out.Schema)
	if err != nil {
		return none(fmt.Errorf("reading what %s has for %s: %w", c.Host, id, err))
	}
	want, err := cid.Parse(out.Cid)
	if err != nil {
		return none(fmt.Errorf("reading what %s has for %s: %w", c.Host, id, err))
	}
	if got := cid.Sum(cid.DagCBOR, record); got != want {
		return none(&Error{NSID: id, Kind: KindProof, Err: fmt.Errorf("%s says that the schema is %s, and it is %s", c.Host, want, got)})
	}
	uri, err := syntax.ParseATURI(out.Uri)
	if err != nil || uri.Authority().DID() == "" || uri != URI(uri.Authority().DID(), id) {
		return none(&Error{NSID: id, Kind: KindSchema, Err: fmt.Errorf("%s says that it is at %.200q", c.Host, out.Uri)})
	}
	schema, err := ParseRecord(id, record)
	if err != nil {
		return none(&Error{NSID: id, Kind: KindSchema, DID: uri.Authority().DID(), Err: err})
	}
	return schema, uri, want, nil
}
