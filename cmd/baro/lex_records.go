package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/barograph/baro/client"
	"github.com/barograph/baro/data"
	"github.com/barograph/baro/repo"
	"github.com/barograph/baro/syntax"
)

// lexRecord is a record to be held against its schema.
type lexRecord struct {
	Name  string           // a URI, a path or a file
	Type  syntax.NSID      // collection, or $type where there is none
	Key   syntax.RecordKey // "" if not known
	Value []byte           // DAG-CBOR; nil if it can't be read
	Err   error            // why
}

// lexRecords reads records from wherever an argument says: standard input (-), a file of JSON, a CAR file, a record, a collection or a
// whole repository. Collection leaves out all others, if it isn't "".
func (e *env) lexRecords(ctx context.Context, arg string, collection syntax.NSID, f networkFlags, offline bool) iter.Seq2[*lexRecord, error] {
	return func(yield func(*lexRecord, error) bool) {
		if err := e.eachLexRecord(ctx, arg, collection, f, offline, func(r *lexRecord) bool { return yield(r, nil) }); err != nil {
			yield(nil, err)
		}
	}
}

// errStopped ends a walk whose visitor has seen enough.
var errStopped = errors.New("stopped")

func (e *env) eachLexRecord(ctx context.Context, arg string, collection syntax.NSID, f networkFlags, offline bool, visit func(*lexRecord) bool) error {
	if arg == "-" {
		b, err := io.ReadAll(io.LimitReader(e.stdin, maxRecordText+1))
		if err != nil {
			return fmt.Errorf("reading standard input: %w", err)
		}
		visit(recordOfText("standard input", b))
		return nil
	}
	info, err := os.Stat(arg)
	if err == nil && !info.IsDir() {
		file, err := os.Open(arg)
		if err != nil {
			return err
		}
		head := make([]byte, 64)
		n, _ := io.ReadFull(file, head)
		if text := strings.TrimLeft(string(head[:n]), " \t\r\n\ufeff"); strings.HasPrefix(text, "{") || n == 0 {
			defer file.Close()
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				return err
			}
			b, err := io.ReadAll(io.LimitReader(file, maxRecordText+1))
			if err != nil {
				return err
			}
			visit(recordOfText(arg, b))
			return nil
		}
		file.Close()
		return e.eachOfRepository(ctx, arg, collection, f, true, visit)
	}
	if offline {
		return usagef("%q is no file, and with --offline nobody is asked", arg)
	}
	uri, err := readURI(arg)
	if err != nil {
		return usagef("%q is neither a file nor an AT-URI, such as at://alice.test/test.alice.note/3l6oveex3ii2l", arg)
	}
	switch {
	case uri.Collection() == "":
		return e.eachOfRepository(ctx, arg, collection, f, false, visit)
	case collection != "" && uri.Collection() != collection:
		return usagef("%s is not of the collection %s", uri, collection)
	}
	return e.eachOfPDS(ctx, uri, f, visit)
}

// maxRecordText is the largest record in JSON that is read.
const maxRecordText = 4 << 20

func recordOfText(name string, b []byte) *lexRecord {
	r := &lexRecord{Name: name}
	if len(b) > maxRecordText {
		r.Err = fmt.Errorf("more than %d bytes", maxRecordText)
		return r
	}
	r.Value, r.Err = data.AppendCBOR(nil, b)
	if r.Err != nil {
		r.Value = nil
		return r
	}
	r.Type = syntax.NSID(data.TypeOf(r.Value))
	return r
}

// eachOfRepository reads a whole repository, verified, from a CAR file or a PDS.
func (e *env) eachOfRepository(ctx context.Context, arg string, collection syntax.NSID, f networkFlags, file bool, visit func(*lexRecord) bool) error {
	src, err := e.openSource(ctx, arg, f)
	if err != nil {
		return err
	}
	defer src.close()
	_, err = src.verifyWhole(ctx, repoCheck{offline: file, records: repo.RecordsReadable}, func(rec repo.Record) error {
		c, k := splitPath(rec.Path)
		if collection != "" && c != string(collection) {
			return nil
		}
		if !visit(&lexRecord{Name: string(rec.Path), Type: syntax.NSID(c), Key: syntax.RecordKey(k), Value: rec.Data}) {
			return errStopped
		}
		return nil
	})
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// eachOfPDS reads a record or a collection from a PDS.
func (e *env) eachOfPDS(ctx context.Context, uri syntax.ATURI, f networkFlags, visit func(*lexRecord) bool) error {
	a, err := e.lookup(ctx, uri.Authority(), f)
	if err != nil {
		return err
	}
	c := a.client(e)
	of := func(r *client.Record[data.Raw]) *lexRecord {
		return &lexRecord{Name: string(r.URI), Type: r.URI.Collection(), Key: r.URI.RecordKey(), Value: r.Value}
	}
	if uri.RecordKey() != "" {
		at := uri.WithAuthority(syntax.AtIdentifier(a.DID))
		r, err := client.Get[data.Raw](ctx, c, at, client.GetOptions{})
		if err != nil {
			return err
		}
		visit(of(r))
		return nil
	}
	stopped := false
	o := client.ListOptions{Collection: uri.Collection(), OnBad: func(d *client.DecodeError) {
		stopped = stopped || !visit(&lexRecord{Name: d.URI, Type: uri.Collection(), Err: d.Err})
	}}
	for r, err := range client.List[data.Raw](ctx, c, syntax.AtIdentifier(a.DID), o) {
		if err != nil {
			return err
		}
		if stopped || !visit(of(&r)) {
			return nil
		}
	}
	return nil
}
