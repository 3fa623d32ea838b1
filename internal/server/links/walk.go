package links

import (
	"errors"
	"fmt"
	"strings"

	"github.com/barograph/baro/internal/crashpoint"
	"github.com/barograph/baro/internal/kv"
)

// A walk goes over all records of an account: to show its links, to hide them, or to remove its records for good. It may take
// several batches. Where it stands is in the last of them, so that it goes on after a crash; nothing else is written to the
// index before it has ended.
type walk struct {
	actor uint32
	do    byte
	then  bool   // whether the account is shown after a purge
	from  string // path of the next record
}

const (
	walkShow  = 1
	walkHide  = 2
	walkPurge = 3
)

func (k *walk) append(b []byte) []byte {
	b = kv.AppendUint32(b, k.actor)
	then := byte(0)
	if k.then {
		then = 1
	}
	return append(append(b, k.do, then), k.from...)
}

// walk runs a walk in the batch that w has begun, and in further ones if need be.
func (w *writer) walk(k walk) error {
	did, err := readDID(w.r, k.actor)
	if err != nil {
		return err
	}
	packed := appendDID(nil, did)
	for {
		a, err := w.account(k.actor, did)
		if err != nil {
			return err
		}
		p := actorKey(rowForward, k.actor)
		it := w.r.Iter(recordKey(k.actor, k.from), kv.PrefixEnd(p))
		n, links, more := 0, 0, false
		for it.Next() {
			if n == w.ix.walkRecords || links > w.ix.batchRows {
				k.from, more = string(it.Key()[len(p):]), true
				break
			}
			ls, err := decodeLinks(it.Value())
			if err == nil {
				_, rkey, _ := strings.Cut(string(it.Key()[len(p):]), "/")
				err = w.visit(k.do, a, packed, rkey, ls)
			}
			if err != nil {
				return errors.Join(err, it.Close())
			}
			if k.do == walkPurge {
				w.b.Delete(it.Key())
			}
			n++
			links += len(ls)
		}
		if err := it.Close(); err != nil {
			return err
		}
		if !more {
			a.shown = k.do == walkShow || k.do == walkPurge && k.then
			switch k.do { // a purge counts as it goes
			case walkShow:
				w.stats.DIDs += present(a.linking)
			case walkHide:
				w.stats.DIDs -= present(a.linking)
			}
			w.b.Delete(keyWalk)
			return w.commit()
		}
		w.b.Set(keyWalk, k.append(nil))
		if err := w.commit(); err != nil {
			return err
		}
		crashpoint.Hit("links/walk/part")
	}
}

// visit deals with one record of a walk.
func (w *writer) visit(do byte, a *account, did []byte, rkey string, ls []link) error {
	if do == walkPurge {
		return w.replace(a, did, rkey, ls, nil)
	}
	if len(ls) > 0 {
		if do == walkShow {
			w.stats.Records++
		} else {
			w.stats.Records--
		}
	}
	for _, l := range ls {
		var err error
		if do == walkShow {
			err = w.insert(l, did, rkey)
		} else {
			err = w.remove(l, did, rkey)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finishWalk goes on with a walk that a crash cut short.
func (ix *index) finishWalk() error {
	v, err := ix.store.Get(keyWalk)
	if errors.Is(err, kv.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	actor, rest, ok := kv.CutUint32(v)
	if !ok || len(rest) < 2 {
		return errors.New("the row of the walk is damaged")
	}
	w := ix.writer()
	defer w.close()
	if err := w.walk(walk{actor: actor, do: rest[0], then: rest[1] != 0, from: string(rest[2:])}); err != nil {
		return fmt.Errorf("finishing a walk: %w", err)
	}
	return nil
}
