package state

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Use says that an account uses a service; both are NAMESPACE/NAME.
type Use struct{ Account, Service string }

// key of a use: ACCOUNT, a zero byte, SERVICE.
func (u Use) key() []byte { return []byte(u.Account + "\x00" + u.Service) }

// Uses are all that were stored, in order.
func (db *DB) Uses() (uses []Use, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		return tx.Bucket(usesBucket).ForEach(func(key, _ []byte) error {
			account, service, ok := bytes.Cut(key, []byte{0})
			if !ok {
				return fmt.Errorf("stored use %q is not of an account and a service", key)
			}
			uses = append(uses, Use{string(account), string(service)})
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read what is used: %w", err)
	}
	return uses, nil
}

// AddUses stores uses, in one transaction.
func (db *DB) AddUses(uses ...Use) error {
	err := db.update(func(tx *bolt.Tx) error {
		for _, u := range uses {
			if err := tx.Bucket(usesBucket).Put(u.key(), nil); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store what is used: %w", err)
	}
	return nil
}
