package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/barograph/baro/api/comatproto"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/devnet"
	"github.com/barograph/baro/internal/bench"
	"github.com/barograph/baro/stream"
	"github.com/barograph/baro/xrpc"
)

const (
	benchWriters   = 8
	benchConsumers = 10
)

// gaugeDisk measures appending to a file that has its space and waiting for the disk, as a store's log does.
func gaugeDisk(ctx context.Context, dir string, d time.Duration) ([]bench.Row, error) {
	ns, err := syncTime(ctx, dir, d)
	if err != nil {
		return nil, fmt.Errorf("measuring the disk: %w", err)
	}
	return []bench.Row{{Name: "disk-sync", What: "write 2 KiB to a file and wait until the disk has it, one after another; wall-clock time", OursNS: ns, Allocs: -1, OK: true,
		Bound: "the disk"}}, nil
}

// syncTime returns the nanoseconds of one write with its sync.
func syncTime(ctx context.Context, dir string, d time.Duration) (ns float64, err error) {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := make([]byte, 2<<10)
	const size = 4 << 20
	for range size / len(page) {
		if _, err := f.Write(page); err != nil {
			return 0, err
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	began, n := time.Now(), 0
	for ; n == 0 || time.Since(began) < d && ctx.Err() == nil; n++ {
		if _, err := f.WriteAt(page, int64(n*len(page)%size)); err != nil {
			return 0, err
		}
		if err := dataSync(f); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(began)) / float64(n), ctx.Err()
}

// gaugeNetwork measures durable writes to a PDS and the fan-out of its events, in a network in this process.
func gaugeNetwork(ctx context.Context, dir string, d time.Duration) (rows []bench.Row, err error) {
	floor, err := syncTime(ctx, dir, d/4)
	if err != nil {
		return nil, fmt.Errorf("measuring the disk: %w", err)
	}
	n, err := devnet.Start(ctx, devnet.Options{Dir: filepath.Join(dir, "network")})
	if err != nil {
		return nil, fmt.Errorf("starting a network to measure: %w", err)
	}
	defer func() { err = errors.Join(err, n.Close()) }()

	var people []*xrpc.Client
	var dids []string
	for i := range benchWriters {
		name := fmt.Sprintf("writer%d", i)
		made, err := comatproto.ServerCreateAccount.Call(ctx, n.PDS(), &comatproto.ServerCreateAccount_Input{
			Handle: name + devnet.HandleDomain, Email: new(name + "@example.com"), Password: new("measure-this-machine"),
		})
		if err != nil {
			return nil, fmt.Errorf("making an account to measure with: %w", err)
		}
		people, dids = append(people, n.PDS().WithAuth(xrpc.Bearer(made.AccessJwt))), append(dids, made.Did)
	}
	g := bench.NewGenerator(1)
	record := data.Raw(bench.Encode(g.Post()))
	var written atomic.Int64
	began := time.Now()
	eg, ectx := errgroup.WithContext(ctx)
	for i, c := range people {
		eg.Go(func() error {
			for time.Since(began) < d && ectx.Err() == nil {
				_, err := comatproto.RepoCreateRecord.Call(ectx, c, &comatproto.RepoCreateRecord_Input{Repo: dids[i], Collection: "app.bsky.feed.post", Record: record})
				if err != nil {
					return fmt.Errorf("writing a record: %w", err)
				}
				written.Add(1)
			}
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	took := float64(time.Since(began)) / float64(max(written.Load(), 1))
	rows = append(rows, bench.Row{Name: "network-create", What: fmt.Sprintf("createRecord over HTTP, acknowledged when it is on the disk, %d writers on as many repositories; wall-clock time", benchWriters),
		OursNS: took, Allocs: -1, Floor: "one write and sync of 2 KiB", FloorNS: &floor, Of: bench.FloorOverOurs, Ratio: floor / took, OK: true,
		Bound: "the cores, which server, clients, relay and index share; several records share one sync, so that the ratio may be above 1"})

	took, err = fanOut(ctx, n.URLs().PDS, int(written.Load()))
	if err != nil {
		return nil, fmt.Errorf("reading the events of the PDS: %w", err)
	}
	rows = append(rows, bench.Row{Name: "network-fanout", What: fmt.Sprintf("one of the PDS's events to one of %d consumers, from the log, all of them reading at once; wall-clock time", benchConsumers),
		OursNS: took, Allocs: -1, OK: true, Bound: "the kernel's sockets, and the consumers on the same cores"})
	return rows, nil
}

// fanOut reads so many commits from the start with several consumers, and returns the nanoseconds of each event that reached
// one.
func fanOut(ctx context.Context, host string, commits int) (float64, error) {
	var events atomic.Int64
	began := time.Now()
	eg, ctx := errgroup.WithContext(ctx)
	for range benchConsumers {
		eg.Go(func() error {
			left := commits
			start := int64(0)
			for f, err := range stream.Subscribe(ctx, host, stream.SubscribeOptions{After: &start, MaxAttempts: 3, DialOptions: stream.DialOptions{ReuseBuffer: true}}) {
				if err != nil {
					return err
				}
				events.Add(1)
				if f.Type == stream.TypeCommit {
					left--
				}
				if left <= 0 {
					break
				}
			}
			return ctx.Err()
		})
	}
	err := eg.Wait()
	return float64(time.Since(began)) / float64(max(events.Load(), 1)), err
}
