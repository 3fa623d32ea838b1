package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/barograph/baro/lexicon"
	"github.com/barograph/baro/syntax"
)

// lexTemplates are the schemas to begin with, in the order of the help. NSID and NAME are replaced.
var lexTemplates = []struct{ name, about, schema string }{
	{"record", "a record, in a collection of its own", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "main": {
      "type": "record",
      "description": "Record of a NAME. Say here what it stands for.",
      "key": "tid",
      "record": {
        "type": "object",
        "required": ["text", "createdAt"],
        "properties": {
          "text": { "type": "string", "description": "What it says.", "maxLength": 3000, "maxGraphemes": 300 },
          "createdAt": { "type": "string", "format": "datetime", "description": "When the client made it." }
        }
      }
    }
  }
}
`},
	{"query", "a method that reads", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "main": {
      "type": "query",
      "description": "Say here what it returns. Does not require auth.",
      "parameters": {
        "type": "params",
        "required": ["actor"],
        "properties": {
          "actor": { "type": "string", "format": "at-identifier", "description": "Whom it is about." }
        }
      },
      "output": {
        "encoding": "application/json",
        "schema": {
          "type": "object",
          "required": ["did"],
          "properties": {
            "did": { "type": "string", "format": "did", "description": "Account that it is about." }
          }
        }
      }
    }
  }
}
`},
	{"query-view", "a method that returns views of records", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "main": {
      "type": "query",
      "description": "Get a view of a record by its URI. Does not require auth.",
      "parameters": {
        "type": "params",
        "required": ["uri"],
        "properties": {
          "uri": { "type": "string", "format": "at-uri", "description": "Record to show." }
        }
      },
      "output": {
        "encoding": "application/json",
        "schema": {
          "type": "object",
          "required": ["view"],
          "properties": {
            "view": { "type": "ref", "ref": "#view" }
          }
        }
      },
      "errors": [{ "name": "RecordNotFound", "description": "There is no such record." }]
    },
    "view": {
      "type": "object",
      "description": "The record with what is known about it.",
      "required": ["uri", "cid", "author", "record", "indexedAt"],
      "properties": {
        "uri": { "type": "string", "format": "at-uri", "description": "Where the record is." },
        "cid": { "type": "string", "format": "cid", "description": "Version of the record." },
        "author": { "type": "string", "format": "did", "description": "Account that wrote it." },
        "record": { "type": "unknown", "description": "The record as it was written." },
        "indexedAt": { "type": "string", "format": "datetime", "description": "When this service saw it." }
      }
    }
  }
}
`},
	{"query-list", "a method that returns pages of a list", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "main": {
      "type": "query",
      "description": "Get a list, a page at a time. Does not require auth.",
      "parameters": {
        "type": "params",
        "properties": {
          "limit": { "type": "integer", "description": "Items of a page.", "minimum": 1, "maximum": 100, "default": 50 },
          "cursor": { "type": "string", "description": "Where to go on, as the page before said." }
        }
      },
      "output": {
        "encoding": "application/json",
        "schema": {
          "type": "object",
          "required": ["items"],
          "properties": {
            "cursor": { "type": "string", "description": "Where the next page begins. Absent on the last one." },
            "items": { "type": "array", "items": { "type": "ref", "ref": "#item" } }
          }
        }
      }
    },
    "item": {
      "type": "object",
      "description": "One of the list.",
      "required": ["uri"],
      "properties": {
        "uri": { "type": "string", "format": "at-uri", "description": "Record that it is about." }
      }
    }
  }
}
`},
	{"procedure", "a method that changes something", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "main": {
      "type": "procedure",
      "description": "Say here what it changes. Requires auth.",
      "input": {
        "encoding": "application/json",
        "schema": {
          "type": "object",
          "required": ["subject"],
          "properties": {
            "subject": { "type": "string", "format": "at-uri", "description": "Record that it is about." }
          }
        }
      },
      "output": {
        "encoding": "application/json",
        "schema": {
          "type": "object",
          "properties": {}
        }
      }
    }
  }
}
`},
	{"subscription", "a stream of messages", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "main": {
      "type": "subscription",
      "description": "Stream of events, in order. Does not require auth.",
      "parameters": {
        "type": "params",
        "properties": {
          "cursor": { "type": "integer", "description": "Last seq that the client has seen." }
        }
      },
      "message": {
        "schema": { "type": "union", "refs": ["#event", "#info"] }
      },
      "errors": [{ "name": "FutureCursor", "description": "The cursor is ahead of the stream." }]
    },
    "event": {
      "type": "object",
      "description": "Something happened.",
      "required": ["seq", "time"],
      "properties": {
        "seq": { "type": "integer", "description": "Number of the event, which grows." },
        "time": { "type": "string", "format": "datetime", "description": "When the event was sent first." }
      }
    },
    "info": {
      "type": "object",
      "description": "Something that the client should know.",
      "required": ["name"],
      "properties": {
        "name": { "type": "string", "description": "What it is.", "knownValues": ["OutdatedCursor"] },
        "message": { "type": "string", "description": "For people." }
      }
    }
  }
}
`},
	{"permission-set", "a set of permissions that apps ask for together", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "main": {
      "type": "permission-set",
      "title": "Short title for people",
      "detail": "What an app may do that is granted this.",
      "permissions": [
        { "type": "permission", "resource": "repo", "collection": ["GROUP.note"] }
      ]
    }
  }
}
`},
	{"defs", "definitions that several schemas share", `{
  "lexicon": 1,
  "id": "NSID",
  "defs": {
    "view": {
      "type": "object",
      "description": "Say here what it stands for.",
      "required": ["uri"],
      "properties": {
        "uri": { "type": "string", "format": "at-uri", "description": "Record that it is about." }
      }
    }
  }
}
`},
}

func lexTemplateNames() string {
	var names []string
	for _, t := range lexTemplates {
		names = append(names, t.name)
	}
	return strings.Join(names, ", ")
}

func newLexNew(e *env) *cobra.Command {
	var f lexFlags
	var list bool
	cmd := &cobra.Command{
		Use:   "new TYPE NSID",
		Short: "Make a schema from a template",
		Long: "Writes a new schema file in its place below the folder of schemas, from a template:\n" + lexTemplateNames() + ".\n" +
			"A file that is there is left alone.",
		Example: "  baro lex new record test.alice.note\n  baro lex new query-list com.example.listNotes\n  baro lex new --list-templates",
		Args: func(_ *cobra.Command, args []string) error {
			if list && len(args) == 0 || !list && len(args) == 2 {
				return nil
			}
			return errors.New("arguments")
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if list {
				return e.lexTemplates()
			}
			return e.lexNew(args[0], args[1], f.dir)
		},
	}
	cmd.Flags().BoolVarP(&list, "list-templates", "l", false, "list the templates")
	f.addDir(cmd.Flags())
	return cmd
}

func (e *env) lexTemplates() error {
	for _, t := range lexTemplates {
		var err error
		if e.json {
			err = e.printJSON(map[string]string{"template": t.name, "about": t.about})
		} else {
			_, err = fmt.Fprintf(e.stdout, "%-16s %s\n", t.name, t.about)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *env) lexNew(template, name, dir string) error {
	id, err := parseNSID(name)
	if err != nil {
		return err
	}
	b, err := lexFromTemplate(template, id)
	if err != nil {
		return err
	}
	path := lexPath(dir, id)
	if _, err := os.Lstat(path); err == nil {
		return withHint(fmt.Errorf("%s is there already", path), "edit it, or choose another name")
	}
	if err := writeFile(path, b); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]string{"nsid": string(id), "path": path})
	}
	_, err = fmt.Fprintln(e.stdout, path)
	return err
}

func lexFromTemplate(template string, id syntax.NSID) ([]byte, error) {
	for _, t := range lexTemplates {
		if t.name != template {
			continue
		}
		s := strings.NewReplacer("NSID", string(id), "NAME", id.Name(), "GROUP", id.Prefix()).Replace(t.schema)
		schema, err := lexicon.ParseSchema([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("making a %s: %w", template, err)
		}
		return prettySchema(schema.Raw)
	}
	return nil, usagef("there is no template %q: choose one of %s", template, lexTemplateNames())
}
