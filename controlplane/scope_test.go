package controlplane

import (
	"slices"
	"testing"
)

func TestScopes(t *testing.T) {
	s := NewScopes()
	if fresh := s.Use("shop/web", "shop/db", "shop/api"); !slices.Equal(fresh, []string{"shop/db", "shop/api"}) {
		t.Errorf("fresh: %v", fresh)
	}
	if fresh := s.Use("shop/web", "shop/api", "shop/cache"); !slices.Equal(fresh, []string{"shop/cache"}) {
		t.Errorf("fresh the second time: %v", fresh)
	}
	if got := s.Groups("shop/web"); !slices.Equal(got, []string{"shop/api", "shop/cache", "shop/db"}) {
		t.Errorf("in use: %v", got)
	}
	if got := s.Groups("shop/api"); len(got) > 0 {
		t.Errorf("in use by who uses nothing: %v", got)
	}
}
