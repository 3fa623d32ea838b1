package devnet

import (
	"fmt"

	"github.com/barograph/baro/internal/mailer"
)

// Mail is a mail that the PDS has sent. None leaves the machine: they are files in the folder mail of the data directory.
type Mail struct {
	To      string // the account's address, or its handle if it has none
	Subject string
	Text    string
	Purpose string // such as "plc" or "reset-password"
	Code    string // what the mail is for: the code to confirm something with
}

func mailOf(m *mailer.Message) Mail {
	return Mail{To: m.To, Subject: m.Subject, Text: m.Text, Purpose: m.Purpose, Code: m.Code}
}

// Mails are the mails that the PDS has sent, the oldest first; of many, the newest thousand.
func (n *Network) Mails() ([]Mail, error) {
	list, err := n.mails.Mails()
	if err != nil {
		return nil, fmt.Errorf("reading the mails of the network: %w", err)
	}
	out := make([]Mail, 0, len(list))
	for i := range list {
		out = append(out, mailOf(&list[i]))
	}
	return out, nil
}
