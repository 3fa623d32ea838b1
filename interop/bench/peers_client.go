package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/barograph/baro/api/appbsky"
	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/internal/bench"
	"github.com/bluesky-social/indigo/api/agnostic"
	"github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/api/bsky"
	"github.com/bluesky-social/indigo/atproto/atclient"
)

// What is listed: some pages of posts.
const (
	listPages = 10
	listSize  = 100
	listDID   = "did:plc:ewvi7nxzyoun6zhxrhs64oiz"
	listPosts = "app.bsky.feed.post"
)

// listBodies returns the pages, as a PDS sends them.
func listBodies() [][]byte {
	raw := bench.NewPosts(false).Raw
	var pages [][]byte
	for p := range listPages {
		var b bytes.Buffer
		b.WriteString(`{"records":[`)
		for i := range listSize {
			n := p*listSize + i
			r := raw[n%len(raw)]
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"uri":"at://%s/%s/3kaaaaaaa%04d","cid":"%s","value":%s}`, listDID, listPosts, n, cid.Sum(cid.DagCBOR, r), bench.Must(data.AppendJSON(nil, r)))
		}
		b.WriteByte(']')
		if p+1 < listPages {
			fmt.Fprintf(&b, `,"cursor":"%d"`, p+1)
		}
		b.WriteByte('}')
		pages = append(pages, b.Bytes())
	}
	return pages
}

// serveVariable makes the program a server of the pages: in a process of its own, so that its time isn't the clients'.
const serveVariable = "BARO_BENCH_SERVE_PAGES"

func servePages() {
	pages := listBodies()
	ln := bench.Must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Printf("http://%s\n", ln.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin) // it ends with the process that asks
		os.Exit(0)
	}()
	bench.Check(http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi("0" + r.URL.Query().Get("cursor"))
		if err != nil || n >= len(pages) || r.URL.Path != "/xrpc/com.atproto.repo.listRecords" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.Header().Set("Content-Length", strconv.Itoa(len(pages[n])))
		w.Write(pages[n])
	})))
}

// pageInput is the server's standard input, which stays open as long as we live.
var pageInput io.WriteCloser

// pageServer starts the server, once, and returns its URL. It ends with this program.
var pageServer = sync.OnceValue(func() string {
	cmd := exec.Command(bench.Must(os.Executable()))
	cmd.Env = append(os.Environ(), serveVariable+"=1")
	cmd.Stderr = os.Stderr
	pageInput = bench.Must(cmd.StdinPipe())
	out := bench.Must(cmd.StdoutPipe())
	bench.Check(cmd.Start())
	return strings.TrimSpace(bench.Must(bufio.NewReader(out).ReadString('\n')))
})

// apart does the work of n operations in a goroutine that isn't bound to a thread as the measuring one is: each answer that comes would
// cost a change of threads otherwise.
func apart(n int, do func()) bench.Work {
	return bench.Work{Ops: n, Do: func() {
		failed := make(chan error)
		go func() { failed <- bench.Guard(do) }()
		bench.Check(<-failed)
	}}
}

// clientRows hold the list of an account's posts, page by page, against the same with indigo's client and types. An operation is one record.
func clientRows() []bench.Bench {
	const records = listPages * listSize
	counted := func(n int) {
		if n != records {
			bench.Check(fmt.Errorf("%d records were listed, want %d", n, records))
		}
	}
	ctx := context.Background()
	ours := func(skip bool) func() (bench.Work, bench.Work) {
		return func() (bench.Work, bench.Work) {
			c := client.New(pageServer(), client.Options{HTTP: &http.Client{}})
			return apart(records, func() {
				n := 0
				for r, err := range client.List[appbsky.FeedPost](ctx, c, listDID, client.ListOptions{SkipHash: skip}) {
					bench.Check(err)
					n += min(1, len(r.Value.Text))
				}
				counted(n)
			}), bench.Work{}
		}
	}
	untyped := func() (bench.Work, bench.Work) {
		c := client.New(pageServer(), client.Options{HTTP: &http.Client{}})
		return apart(records, func() {
			n := 0
			for r, err := range client.List[data.Raw](ctx, c, listDID, client.ListOptions{Collection: listPosts}) {
				bench.Check(err)
				n += min(1, len(r.Value))
			}
			counted(n)
		}), bench.Work{}
	}
	theirs := func() bench.Work {
		c := atclient.NewAPIClient(pageServer())
		return apart(records, func() {
			n, cursor := 0, ""
			for {
				out := bench.Must(atproto.RepoListRecords(ctx, c, listPosts, cursor, listSize, listDID, false))
				for _, r := range out.Records {
					n += min(1, len(r.Value.Val.(*bsky.FeedPost).Text))
				}
				if out.Cursor == nil {
					break
				}
				cursor = *out.Cursor
			}
			counted(n)
		})
	}
	theirsUntyped := func() bench.Work {
		c := atclient.NewAPIClient(pageServer())
		return apart(records, func() {
			n, cursor := 0, ""
			for {
				out := bench.Must(agnostic.RepoListRecords(ctx, c, listPosts, cursor, listSize, listDID, false))
				for _, r := range out.Records {
					n += min(1, len(*r.Value))
				}
				if out.Cursor == nil {
					break
				}
				cursor = *out.Cursor
			}
			counted(n)
		})
	}
	pages := listBodies()
	decode := bench.Bench{
		Name: "list-decode", What: "decode answers of listRecords, 100 posts each, into the types of posts; per record", Allocs: -1,
		Setup: func() (bench.Work, bench.Work) {
			w := bench.Each(pages, func(b []byte) {
				var out comatproto.RepoListRecords_Output
				bench.Check(data.UnmarshalJSON(b, &out))
				for _, r := range out.Records {
					bench.Check(data.Unmarshal(r.Value, new(appbsky.FeedPost)))
				}
			})
			w.Ops = records
			return w, bench.Work{}
		},
	}
	list := bench.Bench{Name: "list-records", Allocs: -1, Setup: ours(false),
		What: "list 1000 posts in pages of 100 from a server in another process, each decoded into the type of posts, and by us hashed and held against its CID; per record"}
	unhashed := bench.Bench{Name: "list-records/unhashed", Allocs: -1, Setup: ours(true), What: "the same, without the hash"}
	raw := bench.Bench{Name: "list-records/untyped", Allocs: -1, Setup: untyped,
		What: "the same, without decoding: by us as CBOR, hashed and held against its CID; by the peer as the JSON that came"}
	return []bench.Bench{
		decode.Against(indigo, 5, func() bench.Work {
			w := bench.Each(pages, func(b []byte) { bench.Check(json.Unmarshal(b, new(atproto.RepoListRecords_Output))) })
			w.Ops = records
			return w
		}),
		list.Against(indigo, 3, theirs),
		unhashed.Against(indigo, 3, theirs),
		raw.Against(indigo, 1, theirsUntyped),
	}
}
