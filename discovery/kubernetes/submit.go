package kubernetes

import (
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// maxRefusals bounds how many changes are tried alone in one go. A mesh that refuses more
// has a trouble of its own, and is asked again later.
const maxRefusals = 64

// errNotTried is why changes wait that were not tried alone.
var errNotTried = errors.New("the mesh refuses too many changes at once; it is asked again")

// submitter brings the mesh to what is wanted, and remembers what is in force.
type submitter struct {
	submit   func([]mesh.Change) (uint64, error)
	rejected *rejections
	log      *slog.Logger

	inForce map[mesh.Ref]mesh.Object
	refused map[mesh.Ref]mesh.Change // by the mesh, for now
	// Objects that cannot be read stay rejected, whatever is in force in their place.
	unreadable map[mesh.Ref]bool
}

// bring submits what of wanted is not in force, all together. Where the mesh refuses that,
// the culprits are found by halves and left out; what they are keeps its last good value.
// The result is false where changes wait that were not even tried.
func (s *submitter) bring(wanted map[mesh.Ref]mesh.Object) bool {
	var changes []mesh.Change
	for ref, object := range wanted {
		delete(s.refused, ref)
		s.clear(ref)
		if old := s.inForce[ref]; old == nil && object == nil || old != nil && object != nil && same(old, object) {
			continue
		}
		changes = append(changes, mesh.Change{Ref: ref, Object: object})
	}
	return s.try(changes)
}

// again tries what was refused once more: the reason may have been another object.
func (s *submitter) again() bool {
	changes := slices.Collect(maps.Values(s.refused))
	clear(s.refused)
	return s.try(changes)
}

func (s *submitter) try(changes []mesh.Change) bool {
	if len(changes) == 0 {
		return true
	}
	slices.SortFunc(changes, func(a, b mesh.Change) int { return a.Ref.Compare(b.Ref) })
	left := maxRefusals
	s.halve(changes, &left)
	if left == 0 {
		s.log.Error("the mesh refuses too many objects of the cluster", "changes", len(changes))
	}
	return left > 0
}

func (s *submitter) halve(changes []mesh.Change, left *int) {
	err := errNotTried
	if *left > 0 {
		_, err = s.submit(changes)
	}
	switch {
	case err == nil:
		for _, c := range changes {
			s.clear(c.Ref)
			if c.Object == nil {
				delete(s.inForce, c.Ref)
			} else {
				s.inForce[c.Ref] = c.Object
			}
		}
	case len(changes) > 1 && *left > 0:
		middle := len(changes) / 2
		s.halve(changes[:middle], left)
		s.halve(changes[middle:], left)
	default:
		if *left > 0 {
			*left--
		}
		for _, c := range changes {
			s.refuse(c, err)
		}
	}
}

func (s *submitter) clear(ref mesh.Ref) {
	if !s.unreadable[ref] {
		s.rejected.clear(ref)
	}
}

func (s *submitter) readable(ref mesh.Ref) { delete(s.unreadable, ref) }

// reject notes an object that cannot be read: what is in force stays.
func (s *submitter) reject(ref mesh.Ref, why Rejection) {
	delete(s.refused, ref)
	s.unreadable[ref] = true
	if s.rejected.set(ref, why) {
		s.log.Warn("an object of the cluster cannot be read", "object", ref.String(), "error", why.Err)
	}
}

func (s *submitter) refuse(c mesh.Change, err error) {
	s.refused[c.Ref] = c
	r := Rejection{Err: err}
	if c.Object != nil {
		r.Generation = c.Object.Header().Generation
	}
	if s.rejected.set(c.Ref, r) && err != errNotTried {
		s.log.Error("an object of the cluster is left out", "object", c.Ref.String(), "error", err)
	}
}
