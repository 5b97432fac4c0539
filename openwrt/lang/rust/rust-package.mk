# SPDX-License-Identifier: MIT
#
# Only for this feed: stands for rust-package.mk of the packages feed, and builds this tree instead of a release. The
# build downloads only the crates in Cargo.lock. In the packages feed, net/net-pulse builds the release.

NET_PULSE_TREE:=$(CURDIR)/../../..
# .cargo has the compile options of SQLite; cargo install --path reads it.
PKG_FILE_DEPENDS:=$(addprefix $(NET_PULSE_TREE)/,.cargo Cargo.lock Cargo.toml LICENSE README.md build.rs src www)
PKG_SKIP_DOWNLOAD:=1

define Build/Prepare
	$(INSTALL_DIR) $(PKG_BUILD_DIR)
	$(CP) $(PKG_FILE_DEPENDS) $(PKG_BUILD_DIR)/
endef

include $(TOPDIR)/feeds/packages/lang/rust/rust-package.mk
