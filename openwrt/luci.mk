# SPDX-License-Identifier: MIT
#
# Only for this feed: stands for luci.mk of the LuCI feed.

include $(TOPDIR)/feeds/luci/luci.mk
