//go:build !purego

package sha256x

func (t *Trails) sum(sums [][Size]byte, messages [][]byte) {
	all := int32(0)
	t.first = append(t.first[:0], 0)
	for _, m := range messages {
		all += int32(len(m)/blockSize) + 1
		t.first = append(t.first, all)
	}
	if cap(t.states) < int(all) {
		t.states = make([]state, all+all/4)
	}
	t.states = t.states[:all]
	// Two lanes, each with the next message as soon as it has done one.
	var lanes [2]lane
	var job [2]int
	next := 0
	load := func(i int) bool {
		if next == len(messages) {
			return false
		}
		l := &lanes[i]
		l.start(messages[next])
		l.trail = t.states[t.first[next]:t.first[next+1]]
		l.trail[0] = initial
		job[i] = next
		next++
		return true
	}
	busy := [2]bool{load(0), load(1)}
	for busy[0] && busy[1] {
		together(&lanes[0], &lanes[1], messages[job[0]], messages[job[1]])
		for i := range lanes {
			if lanes[i].done() {
				lanes[i].state.put(&sums[job[i]])
				busy[i] = load(i)
			}
		}
	}
	for i := range lanes {
		if busy[i] {
			lanes[i].finish(messages[job[i]])
			lanes[i].state.put(&sums[job[i]])
		}
	}
}

func (t *Trails) resume(i int, message []byte, same int, out *[Size]byte) {
	trail := t.states[t.first[i]:t.first[i+1]]
	k := min(same, len(message)) / blockSize
	var l lane
	l.start(message)
	l.state, l.next = trail[k], k
	l.finish(message)
	l.state.put(out)
}

// start16 are sixteen messages before their first block.
var start16 = func() (rows [8][16]uint32) {
	for word, from := range order {
		for i := range rows[word] {
			rows[word][i] = initial[from]
		}
	}
	return rows
}()

// shorts is [Heads].
func shorts(heads []uint32, messages []Short) {
	_ = heads[:len(messages)]
	if sixteen && len(messages) > 8 { // for which sixteen at once take as long as two by two
		var w wide
		for ; len(messages) > 8; heads, messages = heads[min(16, len(messages)):], messages[min(16, len(messages)):] {
			w.state = start16
			for i := range w.base {
				w.base[i] = &messages[min(i, len(messages)-1)][0]
				w.off[i], w.left[i] = 0, 1
			}
			blocks16(&w)
			copy(heads[:min(16, len(messages))], w.state[0][:])
		}
	}
	for len(messages) > 1 {
		s, t := initial, initial
		blocks2(&s, &t, 0, 0, &messages[0][0], &messages[1][0], 1)
		heads[0], heads[1] = s[order[0]], t[order[0]]
		heads, messages = heads[2:], messages[2:]
	}
	if len(messages) > 0 {
		s := initial
		blocks1(&s, 0, &messages[0][0], 1)
		heads[0] = s[order[0]]
	}
}
