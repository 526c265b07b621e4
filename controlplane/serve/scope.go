package serve

import (
	"context"

	"github.com/heddle-mesh/heddle/controlplane"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/state"
)

// maxUnsaved bounds how many uses wait for the disk. What does not fit is remembered all the
// same, until the next restart; after that its proxies bring it along.
const maxUnsaved = 4096

// openScopes remembers what was used before, if proxies are served on demand.
func (cp *controlPlane) openScopes() error {
	if !cp.config.OnDemand {
		return nil
	}
	cp.scopes = controlplane.NewScopes()
	if cp.db == nil {
		return nil
	}
	cp.unsaved = make(chan state.Use, maxUnsaved)
	uses, err := cp.db.Uses()
	for _, u := range uses {
		cp.scopes.Use(u.Account, u.Service)
	}
	return err
}

// asked is told what a proxy has come to use: the others of its account get it, too.
func (cp *controlPlane) asked(proxy xds.Proxy, groups []string) {
	fresh := cp.scopes.Use(proxy.Sharing, groups...)
	if len(fresh) == 0 {
		return
	}
	cp.xds.Join(proxy.Sharing, fresh...)
	for _, group := range fresh {
		select {
		case cp.unsaved <- state.Use{Account: proxy.Sharing, Service: group}:
		default:
		}
	}
}

// saveScopes brings what is used to the disk until the context is done.
func (cp *controlPlane) saveScopes(ctx context.Context) error {
	for {
		select {
		case first := <-cp.unsaved:
			uses := []state.Use{first}
			for len(cp.unsaved) > 0 { // nobody else receives
				uses = append(uses, <-cp.unsaved)
			}
			if err := cp.db.AddUses(uses...); err != nil {
				cp.config.Log.Warn("what proxies use is forgotten at the next restart", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
