package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/xrpc"
)

// com.atproto.sync.getRepo has no ranges. But blocks are named by their hashes: the whole ones in the part of a file that came are as good
// as ever, even when the repository has a new commit, and those that its tree lacks are to be had by com.atproto.sync.getBlocks.

const (
	resumeBatch = 64 // CIDs in the URL of a request: some 4 KB, which proxies let pass
	resumeMoves = 16 // how often the repository may have a new commit while it is fetched
	// resumeShare is how much of the repository has to be there for the rest of it to be fetched in blocks.
	resumeShare = 0.5
	// resumeLeast is the share that has to be there for a download that was begun anew in this run, and cut off again.
	resumeLeast = 0.05
	// resumeExcess is how many times the blocks may be missing that the share makes expect, and resumeSlack how many more: a tree can't
	// be told to be endless in any other way.
	resumeExcess = 4
	resumeSlack  = 1000
)

// newSuffix is for the file that is written in order of a partial one.
const newSuffix = ".partial.new"

// anewError says why a partial file is of no use.
type anewError struct{ why string }

func (e *anewError) Error() string { return e.why }

// download fetches a repository into a file, going on from what an earlier run has left of it. The file is returned to be kept.
func (e *env) download(ctx context.Context, src *repoSource, name string, overwrite bool) (*newFile, *exported, error) {
	part, err := continueFile(name, overwrite)
	if err != nil {
		return nil, nil, err
	}
	os.Remove(name + newSuffix) // of a process that was killed
	pause, begun := downloadPause, false
	for n := 1; ; n++ {
		to, out, err := e.goOn(ctx, src, part, begun)
		if anew, ok := errors.AsType[*anewError](err); ok {
			if anew.why != "" {
				fmt.Fprintf(e.stderr, "all of the repository is fetched anew: %s\n", inert(anew.why))
			}
			begun = true
			if err = part.empty(); err == nil {
				w := bufio.NewWriterSize(part, 256<<10)
				out, err = e.fetchOnce(ctx, src, w)
				err = errors.Join(err, w.Flush())
			}
			to = part
		}
		if err == nil {
			if to != part {
				to.from = part
			}
			return to, out, nil
		}
		size := part.size()
		if size == 0 || failedCheck(err) {
			part.drop()
			return nil, nil, err
		}
		if n == maxDownloads || !cutOff(err) || ctx.Err() != nil {
			fmt.Fprintf(e.stderr, "%s is kept: the same command goes on from its %s\n", part.File.Name(), bytesOf(size))
			return nil, nil, errors.Join(err, part.Close())
		}
		fmt.Fprintf(e.stderr, "the download was cut off after %s, and is tried again: %s\n", bytesOf(size), inert(err.Error()))
		select {
		case <-ctx.Done():
		case <-e.world.Clock.After(pause):
		}
		pause *= 2
	}
}

// resumption completes the blocks of a file.
type resumption struct {
	*blockFile
	acc     *account
	c       *client.Client
	to      *os.File
	end     int64 // where the next block goes
	seen    []bool
	batch   int
	left    int   // blocks that may still come
	fetched int64 // bytes
	t       *transfer
}

// goOn completes a partial file and writes another one of it, in order. The error is an [*anewError] if that can't be done, or isn't worth
// it; begun says that it was tried in this run to fetch all.
func (e *env) goOn(ctx context.Context, src *repoSource, part *newFile, begun bool) (*newFile, *exported, error) {
	if part.size() == 0 {
		return nil, nil, &anewError{}
	}
	r, err := openPartial(ctx, part.File)
	if err != nil {
		return nil, nil, err
	}
	r.acc = src.acc
	r.c = client.New(src.acc.pds, client.Options{HTTP: src.acc.net.http, Now: e.world.Clock.Now, Retry: &xrpc.Retry{Base: downloadPause}})
	was, _, err := r.commit(r.root)
	if err != nil {
		return nil, nil, err
	}
	share, err := r.share(was.Data)
	if err != nil {
		return nil, nil, err
	}
	if least := resumeShare; share < least && (!begun || share < resumeLeast) {
		return nil, nil, &anewError{fmt.Sprintf("%s has only about %.0f%% of it", r.name, 100*share)}
	}
	had := r.end
	r.left = resumeSlack + int(resumeExcess*float64(len(r.index))/share)
	r.t = e.transfer("fetching what is missing of "+src.name, 0)
	defer r.t.done()
	now, block, err := r.follow(ctx, was)
	r.t.done()
	if err != nil {
		return nil, nil, err
	}
	to, err := openNew(part.name, newSuffix, os.O_TRUNC, true)
	if err != nil {
		return nil, nil, err
	}
	out, err := e.assemble(ctx, src, to, now, block, r)
	if err != nil {
		to.drop()
		if errors.Is(err, mst.ErrNotFound) {
			err = &anewError{"a block is missing all the same"}
		}
		return nil, nil, err
	}
	out.verified += fmt.Sprintf(", %s of it from before and %s fetched", bytesOf(had), bytesOf(r.fetched))
	return to, out, nil
}

// openPartial finds the blocks of a file that was broken off which are what they say, and cuts off its torn tail.
func openPartial(ctx context.Context, file *os.File) (*resumption, error) {
	f := &resumption{blockFile: &blockFile{file: file, name: file.Name()}, to: file, batch: resumeBatch}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r, err := car.NewReader(contextReader{ctx, file}, car.Options{Unverified: true})
	if _, ok := errors.AsType[*car.Error](err); ok {
		return nil, &anewError{f.name + " is no CAR file"}
	} else if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.name, err)
	}
	f.root, f.end = r.Root(), r.Offset()
	for {
		c, data, err := r.NextView()
		if _, torn := errors.AsType[*car.Error](err); torn || err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("reading %s: %w", f.name, err)
		}
		f.end = r.Offset()
		if cid.Sum(c.Codec(), data) == *c {
			f.index = append(f.index, blockAt{digestKey(*c), f.end - int64(len(data)), int32(len(data))})
		}
	}
	if err := f.rehash(); err != nil {
		return nil, err
	}
	if err := file.Truncate(f.end); err != nil {
		return nil, fmt.Errorf("writing %s: %w", f.name, err)
	}
	return f, nil
}

// commit loads a commit of the account, whose signature it checks.
func (r *resumption) commit(id cid.CID) (*repo.Commit, []byte, error) {
	if r.acc.SigningKey == nil {
		return nil, nil, notVerified(fmt.Errorf("the DID document of %s has no signing key", r.acc.DID))
	}
	if !id.Defined() || !r.likely(id) {
		return nil, nil, &anewError{r.name + " has no commit"}
	}
	c, b, err := commitOf(r.name, id, r)
	if failedCheck(err) {
		return nil, nil, &anewError{err.Error()}
	} else if err != nil {
		return nil, nil, err
	}
	if c.DID != r.acc.DID {
		return nil, nil, &anewError{fmt.Sprintf("%s has the repository of %s", r.name, c.DID)}
	}
	if err := c.Verify(r.acc.SigningKey); err != nil {
		return nil, nil, &anewError{fmt.Sprintf("the commit in %s: %v", r.name, err)}
	}
	return c, b, nil
}

// share guesses which part of a tree's blocks is there. A subtree that isn't is taken for one of the usual size: of all keys, one in four
// is a layer further up, and some three records come with a node.
func (r *resumption) share(root cid.CID) (float64, error) {
	type subtree struct {
		root  cid.CID
		layer int
	}
	open := []subtree{{root, 0}}
	var n mst.Node
	have, missing := 0.0, 0.0
	for len(open) > 0 {
		at := open[len(open)-1]
		open = open[:len(open)-1]
		i, b, err := r.find(at.root)
		if errors.Is(err, mst.ErrNotFound) {
			missing += max(1, math.Pow(4, float64(at.layer+1))*4/3)
			continue
		} else if err != nil {
			return 0, err
		}
		if !r.first(i) || n.Decode(b) != nil {
			continue
		}
		have++
		if len(n.Entries) > 0 {
			at.layer = mst.Layer(n.Entries[0].Key)
		}
		if n.Left.Defined() {
			open = append(open, subtree{n.Left, at.layer - 1})
		}
		for _, x := range n.Entries {
			if x.Right.Defined() {
				open = append(open, subtree{x.Right, at.layer - 1})
			}
			if r.likely(x.Value) {
				have++
			} else {
				missing++
			}
		}
	}
	return have / (have + missing), nil
}

// first says whether a block is met for the first time since seen was emptied.
func (r *resumption) first(i int) bool {
	if i >= len(r.seen) {
		r.seen = append(r.seen, make([]bool, len(r.index)-len(r.seen))...)
	}
	was := r.seen[i]
	r.seen[i] = true
	return !was
}

// follow fetches what the file lacks of the repository as it is now, and returns its commit.
func (r *resumption) follow(ctx context.Context, was *repo.Commit) (*repo.Commit, []byte, error) {
	var last cid.CID
	for range resumeMoves {
		head, _, err := r.c.LatestCommit(ctx, r.acc.DID)
		if err != nil {
			return nil, nil, unfit(err)
		}
		if head == last {
			return nil, nil, &anewError{r.acc.pds + " doesn't give all blocks of the repository"}
		}
		last = head
		err = r.fetch(ctx, []cid.CID{head})
		var c *repo.Commit
		var b []byte
		if err == nil {
			c, b, err = r.commit(head)
		}
		if err == nil && c.Rev < was.Rev {
			return nil, nil, &anewError{fmt.Sprintf("%s has revision %s, which is older than %s in %s", r.acc.pds, c.Rev, was.Rev, r.name)}
		}
		if err == nil {
			err = r.complete(ctx, c.Data)
		}
		if !errors.Is(err, client.ErrBlockNotFound) {
			return c, b, err
		}
		// The block may have gone with an older commit.
	}
	return nil, nil, &anewError{"the repository changes faster than it can be fetched"}
}

// complete walks over a tree and fetches what isn't there. Blocks are checked for no more than their hashes: the shape of the tree is
// when the file is written. Memory is a byte for each block, and a way down the tree.
func (r *resumption) complete(ctx context.Context, root cid.CID) error {
	clear(r.seen)
	open := []cid.CID{root}
	var nodes, records []cid.CID // not there
	var n mst.Node
	for {
		switch {
		case len(nodes) >= r.batch || len(open) == 0 && len(nodes) > 0:
			if err := r.fetch(ctx, nodes); err != nil {
				return err
			}
			open, nodes = append(open, nodes...), nodes[:0]
			continue
		case len(records) >= r.batch || len(open) == 0 && len(records) > 0:
			if err := r.fetch(ctx, records); err != nil {
				return err
			}
			records = records[:0]
			continue
		case len(open) == 0:
			return nil
		}
		id := open[len(open)-1]
		open = open[:len(open)-1]
		i, b, err := r.find(id)
		if errors.Is(err, mst.ErrNotFound) {
			nodes = append(nodes, id)
			continue
		} else if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !r.first(i) {
			continue // a tree that has a node twice is a wrong one, and might take for ever
		}
		if err := n.Decode(b); err != nil {
			return notVerified(fmt.Errorf("%s: %w", r.acc.pds, err))
		}
		if n.Left.Defined() {
			open = append(open, n.Left)
		}
		for _, x := range n.Entries {
			if x.Right.Defined() {
				open = append(open, x.Right)
			}
			if !r.likely(x.Value) {
				records = append(records, x.Value)
			}
		}
	}
}

// fetch adds blocks to the file, those that aren't there yet. If the server doesn't have one the error is [client.ErrBlockNotFound].
func (r *resumption) fetch(ctx context.Context, want []cid.CID) error {
	for at := 0; at < len(want); {
		var ask []cid.CID
		next := at
		for ; next < len(want) && len(ask) < r.batch; next++ {
			if _, _, err := r.find(want[next]); err == nil || slices.Contains(ask, want[next]) {
				continue
			} else if !errors.Is(err, mst.ErrNotFound) {
				return err
			}
			ask = append(ask, want[next])
		}
		if len(ask) > 0 {
			err := r.ask(ctx, ask)
			x, refused := errors.AsType[*xrpc.Error](err)
			if refused && !errors.Is(err, client.ErrBlockNotFound) && len(ask) > 1 && slices.Contains(tooMany, x.Status) && !isGone(err) {
				r.batch = len(ask) / 2
				continue
			}
			if refused && x.Status == http.StatusBadRequest && !isGone(err) {
				// There are servers that don't give it its name. So it was not for the number of blocks that they refused.
				err = fmt.Errorf("%w: %w", client.ErrBlockNotFound, err)
				r.batch = resumeBatch
			}
			if err != nil {
				return unfit(err)
			}
		}
		at = next
	}
	return nil
}

// tooMany are the answers to a request that may just be for too much at once.
var tooMany = []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusRequestHeaderFieldsTooLarge}

// isGone says whether a server refuses a whole repository.
func isGone(err error) bool {
	return errors.Is(err, comatproto.ErrRepoNotFound) || errors.Is(err, comatproto.ErrRepoTakendown) || errors.Is(err, comatproto.ErrRepoSuspended) || errors.Is(err, comatproto.ErrRepoDeactivated)
}

// unfit makes an [*anewError] of what a server says that has no single blocks to give.
func unfit(err error) error {
	x, ok := errors.AsType[*xrpc.Error](err)
	switch {
	case errors.Is(err, client.ErrBadAnswer):
		return notVerified(err)
	case !ok, isGone(err), errors.Is(err, client.ErrBlockNotFound), x.Status == http.StatusTooManyRequests, x.Status >= 500 && x.Status != http.StatusNotImplemented:
		return err
	}
	return &anewError{err.Error()}
}

// ask makes one request, and appends what comes to the file.
func (r *resumption) ask(ctx context.Context, want []cid.CID) error {
	var frame []byte
	for b, err := range r.c.Blocks(ctx, r.acc.DID, want) {
		if err != nil {
			return err
		}
		if r.left--; r.left < 0 {
			return &anewError{"much more is missing than was to be expected"}
		}
		frame = car.AppendBlock(frame[:0], b.CID, b.Data)
		if _, err := r.to.WriteAt(frame, r.end); err != nil {
			return fmt.Errorf("writing %s: %w", r.name, err)
		}
		r.end += int64(len(frame))
		if err := r.add(b.CID, r.end-int64(len(b.Data)), len(b.Data)); err != nil {
			return err
		}
		r.fetched += int64(len(frame))
		r.t.add(int64(len(frame)))
	}
	return nil
}
