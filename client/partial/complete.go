// Package partial goes on with a repository's download that was cut off, https://atproto.com/specs/sync.
//
// com.atproto.sync.getRepo has no ranges. But blocks are named by their hashes: the whole ones in the part of a file that came are as good
// as ever, even when the repository has a new commit, and those that its tree lacks are to be had by com.atproto.sync.getBlocks.
// [Complete] fetches these, behind what the file has, and [WriteInOrder] writes the repository of it as a server would have. What it
// writes has to be verified like any other download: only hashes and the signature are checked on the way.
//
//	done, err := partial.Complete(ctx, file, partial.Options{Client: c, DID: did, Key: key, Name: "repo.car", Host: host})
//	if anew := (*partial.AnewError)(nil); errors.As(err, &anew) { … } // fetch all of it
//	_, err = partial.WriteInOrder(ctx, out, done.Commit, done.Signed, done)
//
// A server gives single blocks more slowly than a whole repository, so what is worth going on with is for the caller to say
// ([Options.Least]). Memory is some 40 bytes for each block. It does not keep two processes from one file.
package partial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/car"
	"github.com/barograph/baro/cid"
	"github.com/barograph/baro/client"
	"github.com/barograph/baro/keys"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
	"github.com/barograph/baro/xrpc"
)

const (
	resumeBatch = 64 // CIDs in the URL of a request: some 4 KB, which proxies let pass
	resumeMoves = 16 // how often the repository may have a new commit while it is fetched
	// resumeExcess is how many times the blocks may be missing that the share makes expect, and resumeSlack how many more: a tree can't
	// be told to be endless in any other way.
	resumeExcess = 4
	resumeSlack  = 1000
	// resumeFew missing blocks are fetched whatever share of the repository they are.
	resumeFew = 16 * resumeBatch
)

// Shares of a repository that have to be there for the rest of it to be fetched in blocks, for [Options.Least].
const (
	// HalfLeast is right where nothing speaks against fetching all anew.
	HalfLeast = 0.5
	// RetryLeast is for a download that was begun anew before, and cut off again.
	RetryLeast = 0.05
)

// Options say what is to be completed, and how.
type Options struct {
	Client *client.Client // of a host that has the repository
	DID    syntax.DID
	Key    *keys.PublicKey // the account's signing key
	Name   string          // of the file, for errors
	Host   string          // for errors

	Least    float64     // share of the blocks that has to be there, unless a few requests bring the rest; 0: [HalfLeast]
	MaxBytes int64       // of the file; 0: no bound
	Progress func(int64) // is told how many bytes were fetched; may be nil
}

// Writable is a file to go on with, such as an [*os.File].
type Writable interface {
	Readable
	io.WriterAt
	Truncate(size int64) error
}

// Completed is a file that has all blocks of a repository, as a source of them. They are in no order, and there may be others among them.
type Completed struct {
	*File
	Commit  *repo.Commit // which the server has now; its signature was checked
	Signed  []byte       // the block of the commit
	Had     int64        // bytes that were there
	Fetched int64        // bytes that came to them
}

// AnewError says why a file is of no use: the repository has to be fetched as a whole.
type AnewError struct{ Why string }

// Error is why, or that there is nothing to go on with.
func (e *AnewError) Error() string {
	if e.Why == "" {
		return "there is nothing to go on with"
	}
	return e.Why
}

// CheckError says that something is not what it should be: a file, or what a server sent.
type CheckError struct{ Err error }

// Error is that of what is wrong.
func (e *CheckError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *CheckError) Unwrap() error { return e.Err }

// failed says whether an error is one of a failed check.
func failed(err error) bool {
	_, check := errors.AsType[*CheckError](err)
	_, verify := errors.AsType[*repo.VerifyError](err)
	_, hash := errors.AsType[*client.HashError](err)
	return check || verify || hash
}

// resumption completes the blocks of a file.
type resumption struct {
	*File
	o       Options
	to      io.WriterAt
	end     int64 // where the next block goes
	seen    []bool
	batch   int
	left    int   // blocks that may still come
	fetched int64 // bytes
}

// Complete fetches the blocks that a partial file of a repository lacks, and adds them to the file as they come, so that the next call
// goes on from there. It cuts a torn block off the file's end. The error is an [*AnewError] if the file can't be completed or it isn't worth
// it, in which case the caller empties it; after any other but those of failed checks ([*CheckError], [*client.HashError]) the file is good
// to go on with.
func Complete(ctx context.Context, file Writable, o Options) (*Completed, error) {
	if size, err := file.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("reading %s: %w", o.Name, err)
	} else if size == 0 {
		return nil, &AnewError{}
	}
	r, err := openPartial(ctx, file, o)
	if err != nil {
		return nil, err
	}
	was, _, err := r.commit(r.root)
	if err != nil {
		return nil, err
	}
	share, missing, err := r.survey(was.Data)
	if err != nil {
		return nil, err
	}
	if share < orDefault(o.Least, HalfLeast) && missing > resumeFew {
		return nil, &AnewError{fmt.Sprintf("%s has only about %.0f%% of it", r.name, 100*share)}
	}
	had := r.end
	r.left = resumeSlack + int(resumeExcess*float64(len(r.index))/share)
	now, block, err := r.follow(ctx, was)
	if err != nil {
		return nil, err
	}
	return &Completed{File: r.File, Commit: now, Signed: block, Had: had, Fetched: r.fetched}, nil
}

func orDefault(v, d float64) float64 {
	if v <= 0 {
		return d
	}
	return v
}

// openPartial finds the blocks of a file that was broken off which are what they say, and cuts off its torn tail.
func openPartial(ctx context.Context, file Writable, o Options) (*resumption, error) {
	f := &resumption{File: &File{file: file, name: o.Name}, o: o, to: file, batch: resumeBatch}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	r, err := car.NewReader(file, car.Options{Unverified: true})
	if _, ok := errors.AsType[*car.Error](err); ok {
		return nil, &AnewError{f.name + " is no CAR file"}
	} else if err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.name, err)
	}
	f.root, f.end = r.Root(), r.Offset()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
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
	if r.o.Key == nil {
		return nil, nil, &CheckError{fmt.Errorf("the DID document of %s has no signing key", r.o.DID)}
	}
	if !id.Defined() || !r.likely(id) {
		return nil, nil, &AnewError{r.name + " has no commit"}
	}
	c, b, err := Commit(r.name, id, r)
	if failed(err) {
		return nil, nil, &AnewError{err.Error()}
	} else if err != nil {
		return nil, nil, err
	}
	if c.DID != r.o.DID {
		return nil, nil, &AnewError{fmt.Sprintf("%s has the repository of %s", r.name, c.DID)}
	}
	if err := c.Verify(r.o.Key); err != nil {
		return nil, nil, &AnewError{fmt.Sprintf("the commit in %s: %v", r.name, err)}
	}
	return c, b, nil
}

const layers = mst.MaxLayer + 1

// survey is a walk through what is there of a tree.
type survey struct {
	*resumption
	count
	of [layers]struct { // all subtrees of a layer whose roots are there
		roots float64
		count
	}
}

// count is of blocks, and of subtrees of which nothing is there.
type count struct {
	have, missing float64
	absent        [layers]float64 // by layer
}

func (c *count) add(now, before *count) {
	c.have += now.have - before.have
	c.missing += now.missing - before.missing
	for i := range c.absent {
		c.absent[i] += now.absent[i] - before.absent[i]
	}
}

// survey guesses which part of a tree's blocks is there, and how many are missing. A subtree that is missing is taken for one like
// those of its layer that are there, or else for one of the usual size: of all keys, one in four is a layer further up, and some three
// records come with a node.
func (r *resumption) survey(root cid.CID) (share, missing float64, err error) {
	s := survey{resumption: r}
	if err := s.subtree(root, 0, 0); err != nil {
		return 0, 0, err
	}
	missing = s.missing
	var size [layers]float64
	for i := range size {
		size[i] = max(1, math.Pow(4, float64(i+1))*4/3)
		if l := &s.of[i]; l.roots > 0 {
			sum := l.have + l.missing
			for j, n := range l.absent[:i] {
				sum += n * size[j]
			}
			size[i] = sum / l.roots
		}
		missing += s.absent[i] * size[i]
	}
	return s.have / (s.have + missing), missing, nil
}

// subtree counts what is there of a subtree. The layer is that of its root if it can't be told from it.
func (s *survey) subtree(root cid.CID, layer, depth int) error {
	layer = min(max(layer, 0), mst.MaxLayer)
	i, b, err := s.find(root)
	if errors.Is(err, mst.ErrNotFound) {
		s.absent[layer]++
		return nil
	} else if err != nil {
		return err
	}
	var n mst.Node
	if !s.first(i) || n.Decode(b) != nil || depth > mst.MaxLayer {
		return nil // no tree, which is found out later
	}
	before := s.count
	s.have++
	if len(n.Entries) > 0 {
		layer = min(mst.Layer(n.Entries[0].Key), mst.MaxLayer)
	}
	below := func(c cid.CID) error {
		if !c.Defined() {
			return nil
		}
		return s.subtree(c, layer-1, depth+1)
	}
	if err := below(n.Left); err != nil {
		return err
	}
	for _, x := range n.Entries {
		if s.likely(x.Value) {
			s.have++
		} else {
			s.missing++
		}
		if err := below(x.Right); err != nil {
			return err
		}
	}
	s.of[layer].roots++
	s.of[layer].add(&s.count, &before)
	return nil
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
		head, _, err := r.o.Client.LatestCommit(ctx, r.o.DID)
		if err != nil {
			return nil, nil, unfit(err)
		}
		if head == last {
			return nil, nil, &AnewError{r.o.Host + " doesn't give all blocks of the repository"}
		}
		last = head
		err = r.fetch(ctx, []cid.CID{head})
		var c *repo.Commit
		var b []byte
		if err == nil {
			c, b, err = r.commit(head)
		}
		if err == nil && c.Rev < was.Rev {
			return nil, nil, &AnewError{fmt.Sprintf("%s has revision %s, which is older than %s in %s", r.o.Host, c.Rev, was.Rev, r.name)}
		}
		if err == nil {
			err = r.complete(ctx, c.Data)
		}
		if !errors.Is(err, client.ErrBlockNotFound) {
			return c, b, err
		}
		// The block may have gone with an older commit.
	}
	return nil, nil, &AnewError{"the repository changes faster than it can be fetched"}
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
			return &CheckError{fmt.Errorf("%s: %w", r.o.Host, err)}
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

// unfit makes an [*AnewError] of what a server says that has no single blocks to give.
func unfit(err error) error {
	x, ok := errors.AsType[*xrpc.Error](err)
	switch {
	case errors.Is(err, client.ErrBadAnswer):
		return &CheckError{err}
	case !ok, isGone(err), errors.Is(err, client.ErrBlockNotFound), x.Status == http.StatusTooManyRequests, x.Status >= 500 && x.Status != http.StatusNotImplemented:
		return err
	}
	return &AnewError{err.Error()}
}

// ask makes one request, and appends what comes to the file.
func (r *resumption) ask(ctx context.Context, want []cid.CID) error {
	var frame []byte
	for b, err := range r.o.Client.Blocks(ctx, r.o.DID, want) {
		if err != nil {
			return err
		}
		if r.left--; r.left < 0 {
			return &AnewError{"much more is missing than was to be expected"}
		}
		frame = car.AppendBlock(frame[:0], b.CID, b.Data)
		if r.o.MaxBytes > 0 && r.end+int64(len(frame)) > r.o.MaxBytes {
			return fmt.Errorf("%w: the repository of %s has more than %d bytes", client.ErrTooLarge, r.o.DID, r.o.MaxBytes)
		}
		if _, err := r.to.WriteAt(frame, r.end); err != nil {
			return fmt.Errorf("writing %s: %w", r.name, err)
		}
		r.end += int64(len(frame))
		if err := r.add(b.CID, r.end-int64(len(b.Data)), len(b.Data)); err != nil {
			return err
		}
		r.fetched += int64(len(frame))
		if r.o.Progress != nil {
			r.o.Progress(r.fetched)
		}
	}
	return nil
}
