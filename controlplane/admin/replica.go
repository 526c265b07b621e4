package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// maxAsked bounds the objects of one question between replicas.
const maxAsked = 500

// Replica answers for what this replica of the control plane knows of objects, to the
// others only.
type Replica struct {
	apipb.UnimplementedReplicaServer
	server *Server
	peer   func(context.Context) (spiffeid.ID, bool)
	own    spiffeid.ID
}

// NewReplica makes the service. Peer gives the verified identity of a call's client, own is
// that of every replica.
func NewReplica(s *Server, peer func(context.Context) (spiffeid.ID, bool), own spiffeid.ID) *Replica {
	return &Replica{server: s, peer: peer, own: own}
}

// Status implements apipb.ReplicaServer.
func (r *Replica) Status(ctx context.Context, in *apipb.StatusRequest) (*apipb.StatusReply, error) {
	if id, ok := r.peer(ctx); !ok || id != r.own {
		return nil, status.Error(codes.PermissionDenied, "replicas of the control plane answer each other only")
	}
	if len(in.GetRefs()) > maxAsked {
		return nil, status.Errorf(codes.InvalidArgument, "%d objects; ask for %d at most", len(in.GetRefs()), maxAsked)
	}
	reply := new(apipb.StatusReply)
	for _, ref := range in.GetRefs() {
		var data []byte
		if s := r.server.status(mesh.Ref{Kind: mesh.Kind(ref.GetKind()), Name: mesh.Name{Namespace: ref.GetNamespace(), Name: ref.GetName()}}); s != nil {
			var err error
			if data, err = json.Marshal(s); err != nil {
				return nil, status.Errorf(codes.Internal, "%v", err)
			}
		}
		reply.Json = append(reply.Json, data)
	}
	return reply, nil
}

// Statuses gives the statuses of objects as this replica and others know them together;
// nil for an object that the mesh does not have. A replica that cannot be asked is an
// error: the numbers would be wrong.
func (s *Server) Statuses(ctx context.Context, refs []mesh.Ref, others []grpc.ClientConnInterface) ([]*Status, error) {
	out := make([]*Status, len(refs))
	for i, ref := range refs {
		out[i] = s.status(ref)
	}
	for _, conn := range others {
		client := apipb.NewReplicaClient(conn)
		for begin := 0; begin < len(refs); begin += maxAsked {
			part := refs[begin:min(begin+maxAsked, len(refs))]
			in := new(apipb.StatusRequest)
			for _, ref := range part {
				in.Refs = append(in.Refs, &apipb.Ref{Kind: string(ref.Kind), Namespace: ref.Namespace, Name: ref.Name.Name})
			}
			reply, err := client.Status(ctx, in)
			if err != nil {
				return nil, fmt.Errorf("ask another replica: %w", err)
			}
			for i, data := range reply.GetJson() {
				theirs := new(Status)
				if len(data) == 0 || begin+i >= len(out) || out[begin+i] == nil {
					continue
				}
				if err := json.Unmarshal(data, theirs); err != nil {
					return nil, fmt.Errorf("read another replica's answer: %w", err)
				}
				out[begin+i].add(theirs)
			}
		}
	}
	return out, nil
}

// add puts what another replica's proxies say into s.
func (s *Status) add(o *Status) {
	before := s.Proxies
	s.Proxies.Total += o.Proxies.Total
	s.Proxies.Live += o.Proxies.Live
	s.Proxies.Refused = append(s.Proxies.Refused, o.Proxies.Refused...)
	s.Proxies.Behind = append(s.Proxies.Behind, o.Proxies.Behind...)
	for i := range s.Conditions {
		if s.Conditions[i].Type == Programmed {
			s.Conditions[i] = s.sum(s.Conditions[i], o.condition(Programmed), before, o.Proxies)
		}
	}
	for _, p := range s.Parents {
		for i := range p.Conditions {
			if p.Conditions[i].Type == Programmed {
				p.Conditions[i] = s.condition(Programmed)
			}
		}
	}
}

func (s *Status) condition(kind string) Condition {
	for _, c := range s.Conditions {
		if c.Type == kind {
			return c
		}
	}
	return Condition{}
}

// sum is Programmed of two replicas together: the worse of the two, with the numbers of
// both.
func (s *Status) sum(a, b Condition, ofA, ofB Proxies) Condition {
	worse := a
	switch {
	case len(ofA.Refused) > 0 || a.Status == False && a.Reason == "Invalid":
	case b.Status == False && b.Reason == "Invalid":
		worse = b
	case a.Status == Unknown: // no proxies here
		worse = b
	case b.Status == False:
		worse = b
	}
	worse.ObservedGeneration = a.ObservedGeneration
	for _, p := range []Proxies{ofA, ofB} {
		worse.Message = strings.Replace(worse.Message, p.live(), s.Proxies.live(), 1)
	}
	return worse
}

func (p Proxies) live() string { return fmt.Sprintf("live on %d of %d proxies", p.Live, p.Total) }
