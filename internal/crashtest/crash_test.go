//go:build unix

package crashtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/barograph/baro/internal/crashpoint"
)

// campaign is one network that is killed again and again.
type campaign struct {
	t    *testing.T
	dir  string
	rng  *rand.Rand
	o    *oracle
	load *load
	k    *checker

	starts, recoveries, stops []time.Duration
	kills                     map[string]int
}

func number(t testing.TB, name string, def int) int {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		t.Fatalf("%s=%q: want a number", name, s)
	}
	return n
}

// newCampaign brings up a network with some accounts and takes it down again.
func newCampaign(t *testing.T) *campaign {
	seed := number(t, "BARO_CRASH_SEED", 1)
	t.Logf("seed %d", seed)
	c := &campaign{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(uint64(seed), 0)), o: newOracle(), kills: map[string]int{}}
	c.load = &load{o: c.o}
	c.k = newChecker(c.o, c.rng)

	p := start(t, c.dir, "", "--empty")
	cl := newClient()
	defer cl.close()
	r := &round{c.load, cl, p.urls}
	join := func(name string) *account {
		a := &account{handle: name + ".test", password: "crash-" + name}
		a.handles = []string{a.handle}
		c.o.add(a)
		if err := signUp(t.Context(), r, a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	n := 0
	newWriter := func(a *account, pause time.Duration) writer {
		n++
		return writer{a: a, id: fmt.Sprintf("w%d", n), rng: rand.New(rand.NewPCG(uint64(seed), uint64(n))), pause: pause}
	}
	add := func(w worker) { c.load.workers = append(c.load.workers, w) }
	busy := join("busy")
	for range 4 {
		w := newWriter(busy, 0)
		add(&w)
	}
	for _, name := range []string{"one", "two"} {
		w := newWriter(join(name), 2*time.Millisecond)
		add(&w)
	}
	sl := &sleeper{writer: newWriter(join("sleeper"), 100*time.Millisecond)}
	c.bulk(r, sl.a, 2400, 100) // more than the link index deals with at once
	add(sl)
	mv := &mover{newWriter(join("mover"), 200*time.Millisecond)}
	c.bulk(r, mv.a, 24, 60_000) // more than an import writes at once
	add(mv)
	add(&renamer{join("renamer"), 50 * time.Millisecond})
	add(&refresher{join("refresher"), 20 * time.Millisecond})
	add(&signUps{rand.New(rand.NewPCG(uint64(seed), 1<<32))})
	c.k.marker = join("marker")
	c.starts = append(c.starts, p.took)
	c.stops = append(c.stops, p.interrupt(t))
	return c
}

// bulk gives an account many records, or large ones.
func (c *campaign) bulk(r *round, a *account, n, size int) {
	c.t.Helper()
	for left := n; left > 0; {
		var writes []object
		var ops []operation
		for range min(200, left, 1<<20/size/2) {
			rec := object{"$type": bulkNSID, "n": r.next(), "subject": subjects[left%len(subjects)], "text": strings.Repeat("x", size)}
			op := operation{bulkNSID, fmt.Sprintf("bulk-%d", left), r.o.record(bulkNSID, rec)}
			ops = append(ops, op)
			writes = append(writes, object{"$type": "com.atproto.repo.applyWrites#create", "collection": op.collection, "rkey": op.rkey, "value": rec})
			left--
		}
		if _, err := r.write(c.t.Context(), a, "com.atproto.repo.applyWrites", object{"writes": writes}, ops...); err != nil {
			c.t.Fatal(err)
		}
	}
}

// round starts the network with a crash point, or none, and loads it until it is dead, while subscribers listen. Stop is called beside
// the load, to end it from outside.
func (c *campaign) round(what, point string, stop func(p *process)) {
	t := c.t
	t.Helper()
	p := start(t, c.dir, point, "--empty")
	if p.urls == (urls{}) { // it died of the point, as start has seen
		c.kills["at a named point while starting"]++
		return
	}
	if point != "" {
		c.kills["at a named point"]++
	}
	c.starts = append(c.starts, p.took)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl := newClient()
	defer cl.close()
	var beside sync.WaitGroup
	for f, base := range map[*follower]string{c.k.pds: p.urls.PDS, c.k.relay: p.urls.Relay} {
		beside.Go(func() {
			if err := f.watch(ctx, base); err != nil {
				c.load.fail(err)
			}
		})
	}
	beside.Go(func() {
		if stop != nil {
			stop(p)
		}
		select {
		case <-p.exited:
		case <-time.After(20 * time.Second): // no load reaches the point
		}
		cancel()
	})
	c.load.run(ctx, cl, p.urls)
	if !p.dead() && ctx.Err() == nil { // all workers have seen it die
		select {
		case <-p.exited:
		case <-time.After(5 * time.Second):
		}
	}
	cancel()
	beside.Wait()
	switch {
	case !p.dead():
		p.kill()
		t.Errorf("%s: the process did not die: no load reaches the point", what)
	case point != "" && !p.fired(point):
		t.Errorf("%s: the process died of something else: %v\n%s", what, p.err, p.stderr)
	}
	if err := errors.Join(c.load.takeErrors(), p.sound()); err != nil {
		t.Errorf("%s: under load: %v", what, err)
	}
}

// check starts the network again, compares, and stops it, by Ctrl-C or with a kill.
func (c *campaign) check(what string, thorough, clean bool) {
	t := c.t
	t.Helper()
	p := start(t, c.dir, "", "--empty")
	c.recoveries = append(c.recoveries, p.took)
	cl := newClient()
	defer cl.close()
	if err := c.k.check(t.Context(), cl, p.urls, thorough); err != nil {
		t.Fatalf("%s: %v\n%s", what, err, p.stderr)
	}
	for _, w := range c.load.workers {
		if w, ok := w.(interface{ forget(*follower) }); ok {
			w.forget(c.k.pds)
		}
	}
	if !c.awake(t, cl, p.urls) {
		t.Fatalf("%s: an account can't be woken up\n%s", what, p.stderr)
	}
	if clean {
		c.stops = append(c.stops, p.interrupt(t))
	} else {
		p.kill()
	}
	if err := p.sound(); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// forget drops the paths that are not there, after a write whose outcome was unknown.
func (w *writer) forget(f *follower) {
	records := f.live(w.a.did).records
	w.mine = slices.DeleteFunc(w.mine, func(path string) bool { _, ok := records[path]; return !ok })
}

// awake makes all accounts active.
func (c *campaign) awake(t *testing.T, cl *client, u urls) bool {
	for _, w := range c.load.workers {
		if s, ok := w.(*sleeper); ok {
			got, err := cl.post(t.Context(), u.PDS, "com.atproto.server.activateAccount", s.a.access, nil)
			if err != nil || !got.ok() {
				t.Errorf("activateAccount: %v %s", err, got)
				return false
			}
			c.o.touch(s.a.did)
		}
	}
	return true
}

// rebuild builds the link index anew, if need be after a rebuild that was killed, and compares the answers of the two.
func (c *campaign) rebuild() {
	t := c.t
	t.Helper()
	was := maps.Clone(c.k.asked)
	if crashpoint.Enabled {
		point := fmt.Sprintf("links/apply/after:%d", 1+c.rng.IntN(3))
		if cmd := command(t, point, "links", "rebuild", "--data", c.dir); cmd.Run() == nil {
			t.Errorf("a rebuild of the link index did not get to %s", point)
		}
		if c.rng.IntN(2) == 0 { // the network itself has to finish what was left
			c.check("after a killed rebuild", true, true)
		}
	}
	if out, err := command(t, "", "links", "rebuild", "--data", c.dir).CombinedOutput(); err != nil {
		t.Fatalf("baro links rebuild: %v\n%s", err, out)
	}
	c.check("after a rebuild of the link index", true, true) // and after a clean stop everything else is there as well
	for l, before := range was {
		if !slices.Equal(c.k.asked[l], before) {
			t.Errorf("%v: the rebuilt index gives another order", l)
		}
	}
}

// report looks at everything, and tells what was done and how long starting and stopping took.
func (c *campaign) report() {
	c.check("in the end", true, true)
	c.rebuild()
	commits := 0
	for _, r := range c.k.pds.repos {
		commits += len(r.commits)
	}
	c.t.Logf("kills: %v", c.kills)
	c.t.Logf("writes: %d acknowledged, %d without an answer, of which %d had happened; %d commits, %d accounts; PDS log to %d, relay log to %d",
		c.o.acked, c.o.unknown+c.o.became, c.o.became, commits, len(c.k.pds.repos), c.k.pds.last, c.k.relay.last)
	c.t.Logf("start until all services answer: %s; after a crash: %s; stop: %s", spread(c.starts), spread(c.recoveries), spread(c.stops))
	const aim = 2 * time.Second
	if slices.Max(c.recoveries) > aim || len(c.stops) > 0 && slices.Max(c.stops) > aim {
		c.t.Logf("more than the %v that are aimed at", aim)
	}
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "none"
	}
	d = slices.Sorted(slices.Values(d))
	return fmt.Sprintf("median %d ms, most %d ms of %d", d[len(d)/2].Milliseconds(), d[len(d)-1].Milliseconds(), len(d))
}

// TestCrashAtRandom kills the process from outside at random moments under load, and stops it under load with Ctrl-C.
func TestCrashAtRandom(t *testing.T) {
	rounds := 10
	switch {
	case testing.Short():
		rounds = 2
	case !crashpoint.Enabled: // a part of ordinary test runs
		rounds = 4
	}
	rounds = number(t, "BARO_CRASH_ROUNDS", rounds)
	c := newCampaign(t)
	for i := range rounds {
		after := time.Duration(30+c.rng.IntN(1200)) * time.Millisecond
		what := fmt.Sprintf("round %d, killed after %v", i, after)
		if i%4 == 3 {
			c.round(what+" by Ctrl-C", "", func(p *process) {
				time.Sleep(after)
				c.stops = append(c.stops, p.interrupt(t))
			})
			c.kills["Ctrl-C"]++
		} else {
			c.round(what, "", func(p *process) {
				time.Sleep(after)
				p.kill()
				if !p.diedOf(syscall.SIGKILL) {
					t.Errorf("%s: it ended by itself: %v\n%s", what, p.err, p.stderr)
				}
			})
			c.kills["at a random moment"]++
		}
		if i%3 == 1 { // once more while it recovers
			after = time.Duration(c.rng.IntN(300)) * time.Millisecond
			c.round(what+" and again", "", func(p *process) {
				time.Sleep(after)
				p.kill()
			})
			c.kills["at a random moment"]++
		}
		c.check(what, false, i%2 == 0)
	}
	c.report()
}

// hot are the points that are passed with every write; a process is killed later there.
var hot = []string{"pds/commit/", "eventlog/", "links/apply/", "blob/"}

// elsewhere are the points that this load doesn't reach, since it takes mails, an operator or a second host, with the test in which a
// process dies there.
var elsewhere = map[string]string{
	"pds/password/changed":       "../server/pds/secret_crash_test.go",
	"pds/deadline/before-delete": "../server/pds/secret_crash_test.go",
	"pds/identity/after-plc":     "../server/pds/migration_crash_test.go",
	"pds/mail/written":           "../server/pds/account_crash_test.go",
	"pds/mail/sent":              "../server/pds/account_crash_test.go",
}

// TestCrashAtPoints lets the process kill itself at every named point in the sources. A point that no load reaches fails the test:
// it is evidence of nothing.
func TestCrashAtPoints(t *testing.T) {
	if !crashpoint.Enabled {
		t.Skip("crash points need the build tag faulttest")
	}
	if testing.Short() {
		t.Skip("it takes a minute or two")
	}
	points := crashPoints(t)
	for name, file := range elsewhere {
		i := slices.Index(points, name)
		if src, err := os.ReadFile(file); i < 0 || err != nil || !strings.Contains(string(src), strconv.Quote(name)) {
			t.Fatalf("%s: no point of the sources, or %s doesn't test it: %v", name, file, err)
		}
		points = slices.Delete(points, i, i+1)
	}
	if len(points) < 20 {
		t.Fatalf("only %d crash points found: %q", len(points), points)
	}
	c := newCampaign(t)
	rounds := max(2*len(points), number(t, "BARO_CRASH_ROUNDS", 0))
	for i := range rounds {
		name := points[i%len(points)]
		n := 1 + c.rng.IntN(2)
		if slices.ContainsFunc(hot, func(p string) bool { return strings.HasPrefix(name, p) }) {
			n = 1 + c.rng.IntN(60)
		}
		point := fmt.Sprintf("%s:%d", name, n)
		c.round(point, point, nil)
		if i%5 == 2 { // and while it recovers
			again := fmt.Sprintf("eventlog/%s:%d", []string{"before-apply", "after-apply"}[i%2], 1+c.rng.IntN(3))
			c.round(point+", then "+again, again, nil)
		}
		c.check(point, false, i%2 == 0)
		if t.Failed() {
			return
		}
	}
	c.report()
	t.Logf("%d points: %s", len(points), strings.Join(points, " "))
}
