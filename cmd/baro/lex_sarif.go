package main

import (
	"bytes"
	"encoding/json"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// SARIF is the format in which forges take findings, https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html. Only what they
// look at is written.

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	Results []sarifResult `json:"results"`
}

type sarifDriver struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	URI     string      `json:"informationUri"`
	Rules   []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID string `json:"id"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	Level     string          `json:"level"` // error, warning, note
	Message   sarifMessage    `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifMessage struct {
	Text string `json:"text"`
}

type sarifLocation struct {
	Physical struct {
		Artifact struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region struct {
			StartLine int `json:"startLine"`
		} `json:"region"`
	} `json:"physicalLocation"`
	Logical []sarifLogical `json:"logicalLocations,omitempty"`
}

type sarifLogical struct {
	Name string `json:"fullyQualifiedName"`
}

// printSARIF prints findings as one SARIF log. Each has the line of its file.
func (e *env) printSARIF(findings []lexFinding) error {
	run := sarifRun{Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "baro", Version: version().Version, URI: "https://github.com/barograph/baro", Rules: []sarifRule{}}
	seen := map[string]bool{}
	for _, f := range findings {
		if !seen[f.Rule] {
			seen[f.Rule] = true
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{f.Rule})
		}
		level := map[string]string{"error": "error", "warn": "warning", "info": "note"}[f.Level]
		r := sarifResult{RuleID: f.Rule, Level: level, Message: sarifMessage{f.Message}}
		var at sarifLocation
		at.Physical.Artifact.URI = filepath.ToSlash(f.File)
		at.Physical.Region.StartLine = f.Line
		name := f.NSID
		if f.Path != "" {
			name += "/" + f.Path
		}
		at.Logical = []sarifLogical{{name}}
		r.Locations = []sarifLocation{at}
		run.Results = append(run.Results, r)
	}
	slices.SortFunc(run.Tool.Driver.Rules, func(a, b sarifRule) int { return strings.Compare(a.ID, b.ID) })
	return e.printJSON(sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
}

// lineOf returns the line, counted from 1, on which the value at a path such as "defs.main.properties.text" or "errors[1].name" begins in
// a text of JSON. For a path that isn't there it is that of the last step that is.
func lineOf(text []byte, path string) int {
	dec := json.NewDecoder(bytes.NewReader(text))
	at := int64(0)
	findValue(dec, pathSteps(path), &at)
	return 1 + bytes.Count(text[:min(int64(len(text)), at)], []byte{'\n'})
}

func pathSteps(path string) []string {
	var steps []string
	for _, s := range strings.Split(path, ".") {
		name, rest, _ := strings.Cut(s, "[")
		if name != "" {
			steps = append(steps, name)
		}
		for rest != "" {
			var index string
			index, rest, _ = strings.Cut(rest, "]")
			steps = append(steps, index)
			rest = strings.TrimPrefix(rest, "[")
		}
	}
	return steps
}

// findValue reads one value, and notes where the steps lead. It reports whether reading may go on.
func findValue(dec *json.Decoder, steps []string, at *int64) bool {
	t, err := dec.Token()
	if err != nil {
		return false
	}
	switch t {
	case json.Delim('{'):
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return false
			}
			if len(steps) > 0 && key == steps[0] {
				*at = dec.InputOffset()
				if len(steps) == 1 {
					return false
				}
				findValue(dec, steps[1:], at)
				return false
			}
			if !skipValue(dec) {
				return false
			}
		}
	case json.Delim('['):
		for i := 0; dec.More(); i++ {
			if len(steps) > 0 && strconv.Itoa(i) == steps[0] {
				*at = dec.InputOffset() + 1
				if len(steps) == 1 {
					return false
				}
				findValue(dec, steps[1:], at)
				return false
			}
			if !skipValue(dec) {
				return false
			}
		}
	default:
		return true
	}
	_, err = dec.Token()
	return err == nil
}

func skipValue(dec *json.Decoder) bool {
	var v json.RawMessage
	err := dec.Decode(&v)
	return err == nil || err == io.EOF
}
