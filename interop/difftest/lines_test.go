package difftest

import "strings"

// lines gives the cases of a text fixture: no empty lines and no comments, spaces at the edges kept.
func lines(b []byte) []string {
	var list []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSuffix(line, "\n"); line != "" && line[0] != '#' {
			list = append(list, line)
		}
	}
	return list
}
