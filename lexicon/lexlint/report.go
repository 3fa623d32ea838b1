package lexlint

import (
	"encoding/json"
	"io"
	"net/url"
)

// WriteJSON writes findings, or changes, as one JSON array with an entry a line.
func WriteJSON[T Finding | Change](w io.Writer, list []T) error {
	out := []byte{'['}
	for i, x := range list {
		b, err := json.Marshal(x)
		if err != nil {
			return err
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(out, '\n'), b...)
	}
	_, err := w.Write(append(out, "\n]\n"...))
	return err
}

// Tool is the program that a SARIF log names.
type Tool struct {
	Name    string
	Version string
	URI     string
}

// The parts of SARIF 2.1.0 that forges look at, https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool struct {
			Driver sarifDriver `json:"driver"`
		} `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		URI     string      `json:"informationUri,omitempty"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID      string       `json:"id"`
		Text    sarifMessage `json:"shortDescription"`
		Default struct {
			Level string `json:"level"`
		} `json:"defaultConfiguration"`
	}
	sarifMessage struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifMessage    `json:"message"`
		Locations []sarifLocation `json:"locations"`
		Fixes     []sarifFix      `json:"fixes,omitempty"`
	}
	sarifLocation struct {
		Physical *sarifPhysical `json:"physicalLocation,omitempty"`
		Logical  []sarifLogical `json:"logicalLocations,omitempty"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine  int  `json:"startLine,omitempty"`
		ByteOffset *int `json:"byteOffset,omitempty"`
		ByteLength *int `json:"byteLength,omitempty"`
	}
	sarifLogical struct {
		Name string `json:"fullyQualifiedName"`
	}
	sarifFix struct {
		Description sarifMessage  `json:"description"`
		Changes     []sarifChange `json:"artifactChanges"`
	}
	sarifChange struct {
		Artifact     sarifArtifact      `json:"artifactLocation"`
		Replacements []sarifReplacement `json:"replacements"`
	}
	sarifReplacement struct {
		Deleted  sarifRegion  `json:"deletedRegion"`
		Inserted sarifMessage `json:"insertedContent"`
	}
)

// artifact names a file by a relative URI.
func artifact(path string) sarifArtifact { return sarifArtifact{(&url.URL{Path: path}).String()} }

var sarifLevels = map[Level]string{Error: "error", Warn: "warning", Info: "note"}

// WriteSARIF writes findings as one log in SARIF 2.1.0, which forges show beside the code. Fixes are byte ranges of the
// files.
func WriteSARIF(w io.Writer, tool Tool, findings []Finding) error {
	run := sarifRun{Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: tool.Name, Version: tool.Version, URI: tool.URI}
	index := map[string]int{}
	for i, r := range rules {
		x := sarifRule{ID: r.ID, Text: sarifMessage{r.Summary}}
		x.Default.Level = sarifLevels[r.Level]
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, x)
		index[r.ID] = i
	}
	for _, f := range findings {
		r := sarifResult{RuleID: f.Rule, RuleIndex: index[f.Rule], Level: sarifLevels[f.Level], Message: sarifMessage{f.Message}}
		var at sarifLocation
		if f.File != "" {
			at.Physical = &sarifPhysical{artifact(f.File), sarifRegion{StartLine: f.Line}}
		}
		if name := string(f.NSID); name != "" {
			if f.Path != "" {
				name += "/" + f.Path
			}
			at.Logical = []sarifLogical{{name}}
		}
		r.Locations = []sarifLocation{at}
		if f.Fix != nil && f.File != "" {
			change := sarifChange{Artifact: artifact(f.File)}
			for _, e := range f.Fix.Edits {
				length := e.End - e.Start
				change.Replacements = append(change.Replacements, sarifReplacement{sarifRegion{ByteOffset: &e.Start, ByteLength: &length}, sarifMessage{e.New}})
			}
			r.Fixes = []sarifFix{{sarifMessage{f.Fix.Description}, []sarifChange{change}}}
		}
		run.Results = append(run.Results, r)
	}
	b, err := json.MarshalIndent(sarifLog{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []sarifRun{run}}, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
