// Package workflow carries out what servers ask for in answers, and helps servers to ask: com.atiproto.actions
// (https://github.com/Yakrware/atiproto). A server can't write to a user's repository. It answers a call with a list of
// records to create, update or delete instead; the user's agent does that, and calls again with what came of it, until the
// server has nothing more to ask and gives its answer.
//
// For a user, an [Agent] makes the call and everything that follows from it:
//
//	a := &workflow.Agent{PDS: pds, DID: did, Journal: journal, Now: time.Now}
//	tip, err := workflow.Call(ctx, a, "did:web:tips.example#tips", example.TipsSend, &example.TipsSend_Input{…})
//
// Nothing is written that the [Policy] doesn't allow, and a batch is looked at whole before its first write. Every step is
// in a [Journal] before it is taken, so that after a crash, a timeout or a lost answer [Agent.Resume] asks the repository
// what is there and goes on from that: no record is written twice and none is forgotten.
//
// For a service, a [Handler] does the same from the other side: it gives each flow a token that only it can make, sends the
// same answer when the same report comes twice, and believes a report only after it has seen the proof from the user's
// repository.
//
// The package makes no user interface ([Agent.OnPlan] is where one comes in), and doesn't keep a service's data.
//
// Limits: [MaxActions] actions in a batch, [DefaultMaxSteps] batches in a flow, 16 MiB an answer. Stability: settling.
package workflow
