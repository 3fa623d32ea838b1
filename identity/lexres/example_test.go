package lexres_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/identity"
	"github.com/barograph/baro/identity/lexres"
	"github.com/barograph/baro/syntax"
)

func cidOf(b []byte) cid.CID { return cid.Sum(cid.DagCBOR, b) }

func Example() {
	now := time.Now // a service passes its clock
	directory := identity.New(identity.Options{HTTP: http.DefaultClient, Resolver: net.DefaultResolver, Now: now})
	r := lexres.New(lexres.Options{Resolver: net.DefaultResolver, Directory: directory, HTTP: http.DefaultClient, Now: now})
	_, err := r.Resolve(context.Background(), "not an nsid")
	fmt.Println(lexres.KindOf(err))
	fmt.Println(lexres.DNSName("edu.university.dept.lab.blogging.getBlogPost"))
	fmt.Println(lexres.URI(syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz"), "app.toy.record"))
	// Output:
	// not an NSID
	// _lexicon.blogging.lab.dept.university.edu
	// at://did:plc:ewvi7nxzyoun6zhxrhs64oiz/com.atproto.lexicon.schema/app.toy.record
}
