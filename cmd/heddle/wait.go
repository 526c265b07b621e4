package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/admin"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// slow is how long something takes before people are told how far it is.
const slow = time.Second

// waitLive waits until every proxy holds what was applied, and tells of what it finds.
func waitLive(ctx context.Context, e *env, cl *client, reply *apipb.ApplyReply, timeout time.Duration) error {
	request := &apipb.WaitRequest{Revision: reply.GetRevision()}
	for _, r := range reply.GetResults() {
		if cl.elsewhere { // the control plane has yet to see it
			request.Objects = append(request.Objects, &apipb.Origin{Ref: r.GetRef(), Generation: r.GetGeneration()})
		}
	}
	last, err := cl.await(ctx, e.stderr, request, timeout)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "live on %d of %d proxies\n", last.GetLive(), last.GetTotal())
	failed := len(last.GetRefused()) > 0
	for _, r := range last.GetRefused() {
		fmt.Fprintln(e.stderr, refusalLine(r))
	}
	for _, r := range reply.GetResults() {
		if r.GetAction() == apipb.Result_DELETED || r.GetAction() == apipb.Result_NOT_FOUND {
			continue
		}
		docs, err := cl.get(ctx, &apipb.GetRequest{Kind: r.GetRef().GetKind(), Namespace: r.GetRef().GetNamespace(), Name: r.GetRef().GetName()})
		if err != nil || len(docs) != 1 {
			continue // deleted meanwhile
		}
		for _, c := range docs[0].faults() {
			switch {
			case c.Type == admin.Programmed && c.Reason == "Invalid" && !failed:
				fmt.Fprintf(e.stderr, "%s: %s\n", label(r.GetRef()), c.Message)
				failed = true
			case (c.Type == admin.Accepted || c.Type == admin.ResolvedRefs) && !contains(r.GetWarnings(), c.Message):
				fmt.Fprintf(e.stderr, "warning: %s: %s\n", label(r.GetRef()), c.Message)
			}
		}
	}
	if failed {
		return errTold
	}
	return nil
}

// refusalLine names the objects that the refused resource was made from.
func refusalLine(r *apipb.Refusal) string {
	var from []string
	for _, o := range r.GetNack().GetOrigins() {
		from = append(from, label(o.GetRef()))
	}
	typ := r.GetNack().GetType()
	return fmt.Sprintf("refused by %s: %s %s, made from %s: %s", r.GetProxy(), typ[strings.LastIndex(typ, ".")+1:],
		r.GetNack().GetName(), strings.Join(from, ", "), r.GetNack().GetError())
}

// await follows a change to its end. When that takes long, each step is told.
func (c *client) await(ctx context.Context, w io.Writer, request *apipb.WaitRequest, timeout time.Duration) (*apipb.WaitReply, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := c.mesh.Wait(limited, request)
	if err != nil {
		return nil, err
	}
	replies, failed := make(chan *apipb.WaitReply), make(chan error, 1)
	go func() { // ends with the stream, which ends with limited
		defer close(replies)
		for {
			reply, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case replies <- reply:
			case <-limited.Done():
				failed <- limited.Err()
				return
			}
		}
	}()
	last := follow(w, replies)
	if err = <-failed; errors.Is(err, io.EOF) && last.GetDone() {
		return last, nil
	}
	if ctx.Err() == nil && limited.Err() != nil || status.Code(err) == codes.DeadlineExceeded {
		return last, c.late(ctx, last, timeout)
	}
	return last, err
}

// follow reads to the end of replies and tells of progress that takes long.
func follow(w io.Writer, replies <-chan *apipb.WaitReply) (last *apipb.WaitReply) {
	alarm := time.NewTimer(slow)
	defer alarm.Stop()
	late := false
	for {
		select {
		case reply, ok := <-replies:
			if !ok {
				return last
			}
			last = reply
		case <-alarm.C:
			late = true
		}
		if late && last != nil && !last.GetDone() {
			fmt.Fprintf(w, "live on %d of %d proxies\n", last.GetLive(), last.GetTotal())
		}
	}
}

// late names the proxies that have not answered in time.
func (c *client) late(ctx context.Context, last *apipb.WaitReply, timeout time.Duration) error {
	message := fmt.Sprintf("live on %d of %d proxies after %s", last.GetLive(), last.GetTotal(), timeout)
	reply, err := c.mesh.Proxies(ctx, &apipb.ProxiesRequest{})
	if err != nil {
		return errors.New(message)
	}
	var behind []string
	for _, p := range reply.GetProxies() {
		if p.GetAckedRevision() < last.GetRevision() {
			behind = append(behind, p.GetId())
		}
	}
	return fmt.Errorf("%s; still waiting for %s\nThe change is made and goes on; see 'heddle proxies'", message, strings.Join(behind, ", "))
}
