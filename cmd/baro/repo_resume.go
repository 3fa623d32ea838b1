package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/client/partial"
	"github.com/barograph/baro/mst"
	"github.com/barograph/baro/xrpc"
)

// newSuffix is for the file that is written in order of a partial one.
const newSuffix = ".partial.new"

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
		if anew, ok := errors.AsType[*partial.AnewError](err); ok {
			if anew.Why != "" {
				fmt.Fprintf(e.stderr, "all of the repository is fetched anew: %s\n", inert(anew.Why))
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

// goOn completes a partial file and writes another one of it, in order. The error is a [*partial.AnewError] if that can't be done, or isn't
// worth it; begun says that it was tried in this run to fetch all.
func (e *env) goOn(ctx context.Context, src *repoSource, part *newFile, begun bool) (*newFile, *exported, error) {
	t := e.transfer("fetching what is missing of "+src.name, 0)
	defer t.done()
	shown := int64(0)
	o := partial.Options{
		Client: client.New(src.acc.pds, client.Options{HTTP: src.acc.net.http, Now: e.world.Clock.Now, Retry: &xrpc.Retry{Base: downloadPause}}),
		DID:    src.acc.DID, Key: src.acc.SigningKey, Name: part.File.Name(), Host: src.acc.pds,
		Progress: func(n int64) { t.add(n - shown); shown = n },
	}
	if begun {
		o.Least = partial.RetryLeast
	}
	done, err := partial.Complete(ctx, part.File, o)
	t.done()
	if err != nil {
		return nil, nil, err
	}
	to, err := openNew(part.name, newSuffix, os.O_TRUNC, true)
	if err != nil {
		return nil, nil, err
	}
	out, err := e.assemble(ctx, src, to, done.Commit, done.Signed, done)
	if err != nil {
		to.drop()
		if errors.Is(err, mst.ErrNotFound) {
			err = &partial.AnewError{Why: "a block is missing all the same"}
		}
		return nil, nil, err
	}
	out.verified += fmt.Sprintf(", %s of it from before and %s fetched", bytesOf(done.Had), bytesOf(done.Fetched))
	return to, out, nil
}
